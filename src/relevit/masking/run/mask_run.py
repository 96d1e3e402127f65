"""Masks of image files without annotation: a run over files, folders and trees that goes on where it was stopped.

The backbone runs in batches in this process; worker processes read the images and refine the masks. Which images make a
batch follows from the names and sizes of all of them, not from what is done already nor from the number of processes: a
run that was killed, or is shared by several processes, ends with the same bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from relevit.data.image_map import Steps, map_images, worker_processes
from relevit.errors import UserError
from relevit.folders import OwnedFolder
from relevit.masking.features import Kind
from relevit.masking.make import check_features, check_numbers, cut_each
from relevit.masking.record import MaskRecord
from relevit.masking.refinement import MAX_SIDE, Seen, backbone_size
from relevit.masking.run.plan import (
    Size,
    check_clashes,
    find_images,
    find_overrides,
    make_batches,
    read_excluded,
    read_sizes,
)
from relevit.masking.run.publish import SHEET, check_untouched, publish
from relevit.masking.run.state import ImageFile, finish, is_done, known_names, read_record, start_worker, view_of
from relevit.models.attention import patch_size
from relevit.models.fingerprints import of_weights
from relevit.models.loading import data_config, load
from relevit.models.working import working
from relevit.processes import Processes, pick_device
from relevit.versions import versions

Place = str | os.PathLike[str]


class MaskRun(NamedTuple):
    """folder: where the masks lie, class folders and names as those of the images. rows: of each image what masks.csv tells.
    sheet: the contact sheet. made: images done by this call (in all processes), in `seconds`. notes: what the user should know."""

    folder: Path
    rows: list[MaskRecord]
    sheet: Path
    made: int
    seconds: float
    notes: list[str]


@dataclass(frozen=True)
class MaskSettings:
    """How masks are made, which of them are kept, and where the work is done.

    Attributes:
        kind, block: the features that are cut; see `features`.
        refine: whether the bilateral solver refines the cut.
        size: the pictures' short side is first resized to this; None leaves them.
        max_side: pixels of the long side that the backbone sees at most.
        min_confidence, min_pixels: masks below either are left out (protocol: 520 pixels).
        override: a folder of masks that win over those made, under the same relative names.
        exclude: files of names, one a line, of images whose masks are left out.
        batch_size: images in one forward pass.
        workers: processes that read images and refine masks; 0 does it in this one.
        device: where the backbone runs; None takes the accelerator if there is one.
    """

    kind: Kind = "key"
    block: int = -1
    refine: bool = True
    size: int | None = None
    max_side: int = MAX_SIDE
    min_confidence: float = 0.0
    min_pixels: int = 520
    override: Place | None = None
    exclude: Sequence[Place] = ()
    batch_size: int = 16
    workers: int = 0
    device: str | torch.device | None = None

    def __post_init__(self) -> None:
        check_numbers(size=self.size, max_side=self.max_side, batch_size=self.batch_size)
        if not 0 <= self.min_confidence <= 1 or self.min_pixels < 0 or self.workers < 0:
            raise UserError("min_confidence must lie in 0 to 1, min_pixels and workers must not be below 0.")

    @property
    def made_with(self) -> dict[str, object]:
        """What the masks of all images depend on; the rest may differ in the next call."""
        return {name: getattr(self, name) for name in ("kind", "block", "refine", "size", "max_side")}


def make_masks(
    model: nn.Module | Place,
    images: Place | Sequence[Place],
    out: Place,
    *,
    names: Collection[str] | None = None,
    start: Callable[[int], object] = lambda total: None,
    advance: Callable[[int], object] = lambda count: None,
    **options: Any,
) -> MaskRun:
    """Make a mask for each image, and write masks, masks.csv and a contact sheet into the folder `out`.

    images: files, and folders whose trees are kept (of several folders each tree goes into a folder of its name), so
    that `finetune(..., masks=out)` takes the result as it is. model: a module, used as it is, or what `relevit.load`
    takes. names: of the images of folders, those that are done, by relative name; None: all. options: the fields of
    `MaskSettings`. start, advance: called with the number of images to do in this process, and with a number of them that
    are done.

    The same call goes on after an interruption. With another model or other features in the same folder it is refused,
    and so is a folder that holds anything else; thresholds, exclusions and overrides may differ. An image that cannot be
    read is in the table with the reason. Started by `torchrun` or `accelerate launch`, every process does its share; the
    first writes the result, and it alone returns the rows. Raises UserError for unusable arguments before any work.
    """
    began, settings, out = time.monotonic(), MaskSettings(**options), Path(out)
    given = [images] if isinstance(images, str | os.PathLike) else images
    files = find_images([Path(path) for path in given], out, names)
    net, _ = load(model)
    check_features(net, settings.kind, settings.block)
    about = str(model) if isinstance(model, str | os.PathLike) else type(net).__name__
    folder = OwnedFolder(out, "relevit masks", _record(net, about, settings))
    known = sorted({image.name for image in files} | set(known_names(out)))
    check_clashes(known)
    check_untouched(out, known)
    sizes = read_sizes(files)
    excluded = read_excluded(map(Path, settings.exclude), known)
    overrides, unused = _overrides(settings.override, out, known, sizes)
    view: dict[str, Any] = {"patch": patch_size(net), "size": settings.size, "max_side": settings.max_side}
    batches = make_batches(files, sizes, settings.batch_size, partial(backbone_size, **view))
    steps = _steps(net, out, settings, view)
    processes = Processes(settings.device)
    processes.wait()  # all have looked at the folder as it was
    with folder, working(net, processes.device or pick_device(None)):
        processes.wait()  # the first one holds it
        with worker_processes(settings.workers, partial(start_worker, out)) as pool:
            ahead = 2 * settings.batch_size
            made = map_images(batches, steps, pool, processes, waiting=ahead, start=start, advance=advance)
        rows = []
        if processes.is_main:
            rows = publish(
                out,
                [image.name for image in files],
                overrides=overrides,
                excluded=excluded,
                min_confidence=settings.min_confidence,
                min_pixels=settings.min_pixels,
                title=f"Masks in {out.resolve().name}",
            )
        processes.wait()
    notes = [f"{len(unused)} masks of {settings.override} belong to no image ({unused[0]}, ...)"] if unused else []
    return MaskRun(out, rows, out / SHEET, made, time.monotonic() - began, notes)


def _steps(net: nn.Module, out: Path, settings: MaskSettings, view: dict[str, Any]) -> Steps[ImageFile]:
    write = partial(finish, out, refine=settings.refine, size=settings.size)
    cut = partial(_cut, net, settings.kind, settings.block)
    return Steps(partial(is_done, out), write, read=partial(view_of, **view), compute=cut)


def _record(net: nn.Module, about: str, settings: MaskSettings) -> dict[str, Any]:
    """What the next call in the folder must share."""
    return {
        "weights": of_weights(net.state_dict()),
        **{name: list(data_config(net)[name]) for name in ("mean", "std")},
        **settings.made_with,
        "about": {"model": about, **versions()},
    }


def _overrides(
    folder: Place | None, out: Path, names: Sequence[str], sizes: dict[str, Size | None]
) -> tuple[dict[str, Path], list[str]]:
    if folder is None:
        return {}, []
    known: dict[str, Size] = {}
    for name in names:
        size = sizes.get(name)
        if name not in sizes:  # an image of an earlier call
            record = read_record(out, name)
            size = (record.width, record.height) if record is not None and record.width else None
        if size is not None:
            known[name] = size
    return find_overrides(Path(folder), known)


def _cut(net: nn.Module, kind: Kind, block: int, views: Sequence[np.ndarray | str]) -> list[Seen | str]:
    """What the backbone sees in each view of a batch, or why there is none."""
    readable = [view for view in views if not isinstance(view, str)]
    try:
        seen = iter(cut_each(net, readable, kind=kind, block=block))
    except torch.OutOfMemoryError as error:
        raise UserError("The device has too little memory: give a smaller --batch-size or --max-side.") from error
    return [view if isinstance(view, str) else next(seen) for view in views]
