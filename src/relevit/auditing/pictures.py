"""The pictures of an audit: the user's own with their masks, or the built-in benchmark's, each read when it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

from relevit.auditing.conditions import Scene
from relevit.data.checks import Progress, in_parallel, read_pair
from relevit.data.composition.compose import as_picture, resize
from relevit.data.composition.shift_tests import stream
from relevit.data.listing import list_images
from relevit.data.pairing import pair_folder, without_masks
from relevit.errors import UserError, reason_of
from relevit.files import atomic_write
from relevit.images import read_image, read_mask
from relevit.masking.make import automatic_masks, check_features

LEAST_BACKGROUND = 0.05  # of the picture: with less there is nothing to exchange
LEAST_OBJECT = 0.01  # of the picture, of automatic masks only: smaller ones are specks, as the published rule has it
NO_OBJECT, DOUBTFUL, SPECK = "no object found", "patches and edges tell different things", "the mask is a speck"
Labels = Literal["folders", "predicted"]


@dataclass(frozen=True)
class AuditPictures:
    """Pictures with masks and classes; `scene(i)` reads one, reduced so that its short side is at most `size`.

    Attributes:
        names: by which they are drawn and listed; unique.
        classes: the class of each, the name of its folder; where `labels` is "predicted", empty until the first model has
            been asked.
        read: (i) -> `Scene` at the picture's own size.
        labels: where the classes come from.
        objects: what each shows, where several show one object.
        left_out: (file, reason) of pictures that are not audited.
        masks: where the masks come from, for people.
        index: class name -> class index of every model, where the pictures themselves tell it (the built-in benchmark).
        size: pixels; None keeps the pictures' size.
    """

    names: Sequence[str]
    classes: Sequence[str]
    read: Callable[[int], Scene]
    labels: Labels = "folders"
    objects: np.ndarray | None = None
    left_out: Sequence[tuple[str, str]] = ()
    masks: str = "given"
    index: dict[str, int] | None = None
    size: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    def scene(self, number: int) -> Scene:
        """Picture and mask, reduced where the picture is larger than `size`."""
        picture, mask = self.read(number)
        short = min(mask.shape)
        if self.size is None or short <= self.size:
            return Scene(picture, np.asarray(mask, np.float32))
        shape = tuple(max(self.size, round(side * self.size / short)) for side in mask.shape)
        smaller = resize(np.asarray(mask, np.float32), shape)  # type: ignore[arg-type]
        return Scene(resize(picture, shape), smaller)  # type: ignore[arg-type]

    def subset(self, chosen: Sequence[int]) -> AuditPictures:
        """Some of the pictures, in the order of `chosen`."""
        numbers = [int(number) for number in chosen]
        return replace(
            self,
            names=[self.names[i] for i in numbers],
            classes=[self.classes[i] for i in numbers],
            read=lambda number: self.read(numbers[number]),
            objects=None if self.objects is None else self.objects[numbers],
        )


def builtin_pictures(views: int = 3) -> AuditPictures:
    """The in-distribution test set of the built-in benchmark with its exact masks: `views` pictures of each object."""
    from relevit.data.builtin.digits import CLASSES, test_set

    pictures = test_set("in_distribution", "test", views)
    return AuditPictures(
        names=[f"{CLASSES[label]}/{number:05d}" for number, label in enumerate(pictures.labels)],
        classes=[CLASSES[label] for label in pictures.labels],
        read=lambda number: Scene(pictures.images[number], pictures.masks[number]),
        objects=pictures.objects,
        masks="exact",
        index={name: number for number, name in enumerate(CLASSES)},
    )


def find_pictures(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None,
    *,
    limit: int | None = None,
    seed: int = 0,
    labels: Labels | None = None,
    mask_folder: Path | None = None,
    mask_model: Callable[[], nn.Module] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> AuditPictures:
    """The pictures of a folder. Those that cannot be read or have no usable mask are in `left_out`, with the reason.

    images: class folders, or a folder of pictures whose classes are not known (`labels` "predicted": the classes will be
    the first model's answers; also for class folders whose names mean nothing to the model). masks: a folder of masks of
    the same relative names; None makes them by TokenCut with the features of `mask_model()`, written to `mask_folder`, where
    they are found again. limit: this many pictures, drawn by `seed`, as evenly over the classes as can be.

    Raises UserError where there is no picture, pictures lie both in class folders and beside them, or nothing is left.
    """
    if limit is not None and limit < 2:
        raise UserError(f"limit must be at least 2, not {limit}")
    root = Path(images)
    names, source = _listed(root, masks, labels)
    classes = ["" if source == "predicted" else name.split("/")[0] for name in names]
    chosen = draw_balanced(names, classes, limit, seed)
    names, classes = [names[i] for i in chosen], [classes[i] for i in chosen]
    if masks is not None:
        found = _with_masks(root, Path(masks), names, workers, progress)
        origin = "given"
    else:
        if mask_folder is None or mask_model is None:
            raise UserError("masks are needed: give a folder of masks")
        found = _with_automatic(root, mask_folder, names, mask_model, progress)
        origin = "automatic"
    kept: list[int] = []
    left_out = [(name, reason) for name, reason in zip(names, found, strict=True) if isinstance(reason, str)]
    for number, mask in enumerate(found):
        if isinstance(mask, Path):
            kept.append(number)
    if not kept:
        shown = "; ".join(f"{name}: {reason}" for name, reason in left_out[:3])
        raise UserError(f"none of the {len(names)} pictures of {root} can be audited ({shown}): check images and masks")
    paths = [(root / names[i], found[i]) for i in kept]

    @lru_cache(maxsize=64)
    def read(number: int) -> Scene:
        image, mask = paths[number]
        return Scene(as_picture(read_image(image)), read_mask(mask))

    return AuditPictures(
        names=[names[i] for i in kept],
        classes=[classes[i] for i in kept],
        read=read,
        labels=source,
        left_out=left_out,
        masks=origin,
    )


def _listed(root: Path, masks: str | os.PathLike[str] | None, labels: Labels | None) -> tuple[list[str], Labels]:
    """The pictures' relative names, and where their classes come from."""
    files = list_images(root)
    if masks is not None and Path(masks).resolve() == root.resolve():  # NAME.png beside NAME.jpg is its mask
        files = [root / name for name in without_masks(path.relative_to(root).as_posix() for path in files)]
    if not files:
        raise UserError(f"the folder {root} holds no pictures")
    names = [path.relative_to(root).as_posix() for path in files]
    loose = [name for name in names if "/" not in name]
    if labels != "predicted" and loose and len(loose) < len(names):
        raise UserError(
            f"{len(loose)} pictures lie in {root} itself, such as {loose[0]}, others in class folders: move them into "
            "class folders, or take the first model's answers for their classes with --labels predicted"
        )
    if labels == "folders" and loose:
        raise UserError(f"{root} has no class folders: expected {root}/CLASS/IMAGE, or --labels predicted")
    source: Labels = "predicted" if loose or labels == "predicted" else "folders"
    return names, source


def draw_balanced(names: Sequence[str], classes: Sequence[str], limit: int | None, seed: int) -> list[int]:
    """The numbers of `limit` pictures (all, if None), sorted: one of each class, then a second of each, and so on, in an
    order that is drawn by `seed` within each class and among the classes."""
    if limit is None or limit >= len(names):
        return list(range(len(names)))
    members: dict[str, list[int]] = {}
    for number, each in enumerate(classes):
        members.setdefault(each, []).append(number)
    ranked: list[tuple[int, float, int]] = []  # (how many of its class come before, the class's key, number)
    for each, numbers in sorted(members.items()):
        rng = stream(seed, "audit limit", each)
        key = rng.random()
        ranked += [(place, key, numbers[i]) for place, i in enumerate(rng.permutation(len(numbers)))]
    return sorted(number for _, _, number in sorted(ranked)[:limit])


def without_background(pictures: AuditPictures, progress: Progress | None = None, workers: int = 0) -> AuditPictures:
    """Without the pictures of which the object covers all but LEAST_BACKGROUND; they are added to `left_out`."""

    def share(number: int) -> float:
        return 1.0 - float(pictures.scene(number).mask.mean())

    shares = in_parallel(share, range(len(pictures)), workers, progress)
    kept = [number for number, background in enumerate(shares) if background >= LEAST_BACKGROUND]
    if not kept:
        raise UserError(
            f"the masks cover more than {1 - LEAST_BACKGROUND:.0%} of every picture, so that there is no background to audit: "
            "check that masks are 255 on the object and 0 elsewhere"
        )
    reason = f"the mask leaves less than {LEAST_BACKGROUND:.0%} of the picture for the background"
    lost = [(pictures.names[i], reason) for i, background in enumerate(shares) if background < LEAST_BACKGROUND]
    return replace(pictures.subset(kept), left_out=[*pictures.left_out, *lost]) if lost else pictures


def _with_masks(
    root: Path, masks: Path, names: Sequence[str], workers: int, progress: Progress | None
) -> list[Path | str]:
    """For each picture its mask's file, or why it cannot be audited."""
    mask_of = pair_folder(names, masks).mask_of

    def look(name: str) -> Path | str:
        mask = mask_of.get(name)
        if mask is None:
            return f"there is no mask {masks / Path(name).with_suffix('.png')}"
        fault = read_pair(root / name, mask).fault
        return mask if fault is None else f"{fault.kind}{f' ({fault.detail})' if fault.detail else ''}"

    return in_parallel(look, names, workers, progress)


def _with_automatic(
    root: Path,
    folder: Path,
    names: Sequence[str],
    model: Callable[[], nn.Module],
    progress: Progress | None,
) -> list[Path | str]:
    """As `_with_masks`, with masks made by TokenCut; those that are in `folder` already are not made again."""
    found: list[Path | str] = []
    if any(not (folder / f"{name}.png").exists() for name in names):
        check_features(model(), "key", -1)  # whether it gives features at all, before long work
    for number, name in enumerate(names):
        target = folder / f"{name}.png"  # with the picture's own ending, so that a.jpg and a.png differ
        try:
            if not target.exists():
                mask = automatic_masks(model(), [read_image(root / name)])[0]
                refused = mask.quality.confidence == 0 and mask.mask.any()
                _write_mask(target, Image.fromarray(mask.mask.astype(np.uint8) * 255), DOUBTFUL if refused else "")
            found.append(_usable(target))
        except UserError as error:
            found.append(reason_of(error))
        if progress is not None:
            progress(number + 1, len(names))
    return found


def _write_mask(target: Path, picture: Image.Image, reason: str) -> None:
    info = PngInfo()
    info.add_text("relevit", reason)
    atomic_write(target, lambda file: picture.save(file, "PNG", pnginfo=info))


def _usable(mask: Path) -> Path | str:
    with Image.open(mask) as picture:
        picture.load()
        reason = str(getattr(picture, "text", {}).get("relevit", ""))
        share = float((np.asarray(picture) > 0).mean())
    if reason:
        return reason
    if share == 0:
        return NO_OBJECT
    return mask if share >= LEAST_OBJECT else SPECK
