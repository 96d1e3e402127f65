"""Small trees in the exact layouts of ImageNet-S, Pascal VOC, COCO and the published TokenCut masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from timm.data import ImageNetInfo

from relevit.data.annotations import MERGED, Listing

HEIGHT, WIDTH = 29, 31


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rectangle(seed: int, height: int = HEIGHT, width: int = WIDTH, area: int = 11 * 7) -> np.ndarray:
    """A boolean mask of `area` pixels, in rows of 11 (the last may be shorter), somewhere away from the border."""
    mask = np.zeros((height, width), dtype=bool)
    y, x = np.random.default_rng(seed).integers(1, 4, 2)
    rows, rest = divmod(area, 11)
    mask[y : y + rows, x : x + 11] = True
    mask[y + rows, x : x + rest] = True
    return mask


def save(path: Path, values: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(path, **options)
    return path


def palette(labels: np.ndarray) -> Image.Image:
    """A palette PNG with the first colours of Pascal VOC."""
    values = labels.astype(np.uint8)
    image = Image.frombytes("P", (values.shape[1], values.shape[0]), values.tobytes())
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, *[224, 224, 192] * 252])
    return image


def class_ids(mask: np.ndarray, number: int, ignore: np.ndarray | None = None) -> np.ndarray:
    """An ImageNet-S mask: R + 256 G is the class id; 1000 where ignored."""
    ids = np.where(mask, number, 0)
    if ignore is not None:
        ids[ignore] = 1000
    return np.stack([ids % 256, ids // 256, np.zeros_like(ids)], -1).astype(np.uint8)


def wnids(count: int) -> list[str]:
    """`count` sorted wnids of ImageNet, spread over all, five of them merged ones, as in ImageNet-S."""
    names = ImageNetInfo().label_names()
    plain = [name for name in names if name not in MERGED]
    chosen = [plain[round(place)] for place in np.linspace(0, len(plain) - 1, count - 5)]
    return sorted([*chosen, *sorted(MERGED)[:5]])


def imagenet_s(root: Path, names: Sequence[str], per_class: int, ids: dict[str, int] | None = None) -> Path:
    """ImageNetS919/train-semi-segmentation and train-semi; sample n of class c has the seed 10 c + n and two ignored rows."""
    ids = ids or {name: place for place, name in enumerate(sorted(names), start=1)}
    for place, name in enumerate(sorted(names)):
        for number in range(per_class):
            seed, stem = 10 * place + number, f"{name}/{name}_{number + 8}"
            save(root / f"ImageNetS919/train-semi/{stem}.JPEG", picture(seed))
            ignore = np.zeros((HEIGHT, WIDTH), dtype=bool)
            ignore[-2:] = number == 0
            mask = class_ids(rectangle(seed), ids[name], ignore)
            save(root / f"ImageNetS919/train-semi-segmentation/{stem}.png", mask)
    return root / "ImageNetS919"


def names(listing: Listing) -> list[str]:
    return [entry.name for entry in listing.entries]


def kinds(listing: Listing) -> dict[str, str]:
    return {Path(fault.file).name: fault.kind for fault in listing.faults}
