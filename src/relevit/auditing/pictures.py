"""The pictures of an audit: the user's own with their masks, or the built-in benchmark's, each read when it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from relevit.data.builtin.sets import builtin_set
from relevit.data.checks import Progress, in_parallel, read_pair
from relevit.data.composition.shift_tests import stream
from relevit.data.folder import masked_folder
from relevit.data.listing import list_images
from relevit.data.pairing import without_masks
from relevit.data.sets import ImageSet
from relevit.errors import UserError

LEAST_BACKGROUND = 0.05  # of the picture: with less there is nothing to exchange
LEAST_OBJECT = 0.01  # of the picture, of automatic masks only: smaller ones are specks, as the published rule has it
SPECK = "the mask is a speck"
NO_BACKGROUND = f"the mask leaves less than {LEAST_BACKGROUND:.0%} of the picture for the background"
Labels = Literal["folders", "predicted"]
MakeMasks = Callable[[list[str]], dict[str, str]]  # names of pictures -> why some have no mask


@dataclass(frozen=True)
class AuditPictures:
    """Pictures with masks and classes, and where these come from.

    Attributes:
        images: samples with masks, by unique names; the groups are the classes: the names of the folders, or, where `labels` is
            "predicted", empty until the first model has been asked. Labels, where they are known, are those of every model.
        labels: where the classes come from.
        left_out: (file, reason) of pictures that are not audited.
        masks: where the masks come from, for people.
    """

    images: ImageSet
    labels: Labels = "folders"
    left_out: Sequence[tuple[str, str]] = ()
    masks: str = "given"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def names(self) -> Sequence[str]:
        """Of the pictures."""
        return self.images.names

    @property
    def classes(self) -> list[str]:
        """The class of each."""
        return list(self.images.groups or ())

    @property
    def objects(self) -> np.ndarray:
        """What each shows, an object of its own where nothing else is known."""
        return np.arange(len(self)) if self.images.objects is None else np.asarray(self.images.objects)

    def of_classes(self, classes: Sequence[str]) -> AuditPictures:
        """The same with other names of classes."""
        return replace(self, images=replace(self.images, groups=classes))


def builtin_pictures(limit: int | None = None, seed: int = 0) -> AuditPictures:
    """The in-distribution test set of the built-in benchmark with its exact masks; `limit` of them, as `find_pictures`."""
    whole = builtin_set("in_distribution")
    names = [f"{group}/{number:05d}" for number, group in enumerate(whole.groups or ())]
    objects: Any = [int(shown) for shown in whole.objects or ()]  # numbers keep the order of the objects
    images = replace(whole, names=names, objects=objects)
    return AuditPictures(images.subset(draw_balanced(names, images.groups or (), limit, seed)), masks="exact")


def find_pictures(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    *,
    limit: int | None = None,
    seed: int = 0,
    labels: Labels | None = None,
    make_masks: MakeMasks | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> AuditPictures:
    """The pictures of a folder. Those that cannot be read or have no usable mask are in `left_out`, with the reason.

    images: class folders, or a folder of pictures whose classes are not known (`labels` "predicted": the classes will be
    the first model's answers; also for class folders whose names mean nothing to the model). masks: a folder of masks of
    the same relative names; `make_masks` makes those first. limit: this many pictures, drawn by `seed`, as evenly over the
    classes as can be.

    Raises UserError where there is no picture, pictures lie both in class folders and beside them, or nothing is left.
    """
    if limit is not None and limit < 2:
        raise UserError(f"limit must be at least 2, not {limit}")
    root = Path(images)
    listed, source = _listed(root, Path(masks), labels)
    groups = ["" if source == "predicted" else name.split("/")[0] for name in listed]
    names = [listed[number] for number in draw_balanced(listed, groups, limit, seed)]
    reasons = {} if make_masks is None else make_masks(names)
    found, told = masked_folder(root, masks, names=[name for name in names if name not in reasons])
    faults = {number: f"{fault.kind} ({fault.detail})" for number, fault in told}

    def look(number: int) -> str:
        """Why a picture cannot be audited; empty where it can."""
        return faults.get(number) or _amiss(found, number, LEAST_OBJECT if make_masks else 0.0)

    checked = in_parallel(look, range(len(found)), workers, progress)
    reasons |= {name: reason for name, reason in zip(found.names, checked, strict=True) if reason}
    left_out = sorted(reasons.items())
    if len(left_out) == len(names):
        shown = "; ".join(f"{name}: {reason}" for name, reason in left_out[:3])
        raise UserError(
            f"none of the {len(names)} pictures of {root} can be audited ({shown}): check images and masks, which are 255 on "
            "the object and 0 elsewhere"
        )
    kept = found.subset([number for number, reason in enumerate(checked) if not reason])
    made = AuditPictures(kept, source, left_out, "given" if make_masks is None else "automatic")
    return made if source == "folders" else made.of_classes([""] * len(kept))


def _amiss(images: ImageSet, number: int, least: float) -> str:
    """What is wrong with a picture or its mask, read in full; least: the smallest share of the picture that an object has."""
    assert images.files is not None
    _, mask, fault = read_pair(*images.files(number))
    if fault is not None:
        return f"{fault.kind}{f' ({fault.detail})' if fault.detail else ''}"
    share = 0.0 if mask is None else float(mask.mean())
    return SPECK if share < least else NO_BACKGROUND if 1 - share < LEAST_BACKGROUND else ""


def _listed(root: Path, masks: Path, labels: Labels | None) -> tuple[list[str], Labels]:
    """The pictures' relative names, and where their classes come from."""
    names = [path.relative_to(root).as_posix() for path in list_images(root)]
    if masks.resolve() == root.resolve():  # NAME.png beside NAME.jpg is its mask
        names = without_masks(names)
    if not names:
        raise UserError(f"the folder {root} holds no pictures")
    loose = [name for name in names if "/" not in name]
    if labels != "predicted" and loose and len(loose) < len(names):
        raise UserError(
            f"{len(loose)} pictures lie in {root} itself, such as {loose[0]}, others in class folders: move them into "
            "class folders, or take the first model's answers for their classes with --labels predicted"
        )
    if labels == "folders" and loose:
        raise UserError(f"{root} has no class folders: expected {root}/CLASS/IMAGE, or --labels predicted")
    return names, "predicted" if loose or labels == "predicted" else "folders"


def draw_balanced(names: Sequence[str], classes: Sequence[str], limit: int | None, seed: int) -> list[int]:
    """The numbers of `limit` pictures (all, if None), sorted: one of each class, then a second of each, and so on, in an
    order that is drawn by `seed` within each class and among the classes."""
    if limit is None or limit >= len(names):
        return list(range(len(names)))
    members: dict[str, list[int]] = {}
    for number, group in enumerate(classes):
        members.setdefault(group, []).append(number)
    ranked: list[tuple[int, float, int]] = []  # (how many of its class come before, the class's key, number)
    for group, numbers in sorted(members.items()):
        rng = stream(seed, "audit limit", group)
        key = rng.random()
        ranked += [(place, key, numbers[i]) for place, i in enumerate(rng.permutation(len(numbers)))]
    return sorted(number for _, _, number in sorted(ranked)[:limit])
