"""Objects to compose: images with masks, the same as cut-outs, and scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"ant": 3, "bee": 4, "cow": 1}


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def build(root: Path) -> Path:
    """images/ and masks/: objects on backgrounds of one colour each; cutouts/: red disks with alpha; scenes/."""
    rng = np.random.default_rng(0)
    for label, (name, count) in enumerate(CLASSES.items()):
        for number in range(count):
            height, width = 43 + 2 * number, 53 + 6 * label
            image = np.full((height, width, 3), (20 + 60 * label, 10 * number, 77), np.uint8)
            mask = np.zeros((height, width), np.uint8)
            mask[9:28, 11 : 23 + number] = 255
            image[mask > 0] = rng.integers(180, 255, (int((mask > 0).sum()), 3))
            save(root / "images" / name / f"{number}.png", image)
            save(root / "masks" / name / f"{number}.png", mask)
            rows, columns = np.mgrid[:37, :31]
            disk = np.zeros((37, 31, 4), np.uint8)
            disk[..., 1] = 255  # green where nobody sees it
            inside = np.hypot(rows - 17, columns - 14) < 11
            disk[inside] = 255, 0, 0, 255
            save(root / "cutouts" / name / f"{number}.png", disk)
    for number in range(5):
        save(
            root / "scenes" / ("sky" if number < 2 else "sea") / f"{number}.png",
            np.full((29, 67, 3), 40 * number, np.uint8),
        )
    return root
