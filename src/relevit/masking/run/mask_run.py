"""Masks of image files without annotation: a run over files, folders and trees that goes on where it was stopped.

The backbone runs in batches in this process; worker processes read the images and refine the masks. Which images make a
batch follows from the names and sizes of all of them, not from what is done already nor from the number of processes: a
run that was killed, or is shared by several processes, ends with the same bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
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
from relevit.masking.make import check_features, cut_views, object_patches
from relevit.masking.refinement import backbone_size
from relevit.masking.run.plan import Size, check_clashes, find_jobs, make_batches, read_sizes
from relevit.masking.run.publish import (
    SHEET,
    MaskRow,
    check_untouched,
    find_overrides,
    mask_name,
    publish,
    read_excluded,
)
from relevit.masking.run.settings import MaskSettings
from relevit.masking.run.state import Job, Seen, finish, is_done, known_names, read_record, start_worker, view_of
from relevit.models.attention import patch_size
from relevit.models.fingerprints import of_weights
from relevit.models.loading import data_config, load
from relevit.models.working import working
from relevit.processes import Processes
from relevit.versions import versions


class MaskRun(NamedTuple):
    """folder: where the masks lie, class folders and names as those of the images. rows: those of masks.csv. sheet: the
    contact sheet. made: images done by this call (in all processes), in `seconds`. notes: what the user should know."""

    folder: Path
    rows: list[MaskRow]
    sheet: Path
    made: int
    seconds: float
    notes: list[str]


def make_masks(
    model: nn.Module | str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    names: Collection[str] | None = None,
    start: Callable[[int], object] = lambda total: None,
    advance: Callable[[int], object] = lambda count: None,
    **options: Any,
) -> MaskRun:
    """Make a mask for each image, and write masks, masks.csv and a contact sheet into the folder `out`.

    images: files, and folders whose trees are kept (of several folders each tree goes into a folder of its name), so
    that `finetune(..., masks=out)` takes the result as it is. model: a module, used as it is, or what `relevit.load`
    takes. names: of the images of folders, those that are done, by relative name; by default all. options: the fields of `MaskSettings`. start, advance: called with the number of images to do in this
    process, and with a number of them that are done.

    The same call goes on after an interruption. With another model or other features in the same folder it is refused,
    and so is a folder that holds anything else; thresholds, exclusions and overrides may differ. An image that cannot be
    read is in the table with the reason. Started by `torchrun` or `accelerate launch`, every process does its share; the
    first writes the result, and it alone returns the rows. Raises UserError for unusable arguments before any work.
    """
    began = time.monotonic()
    settings = MaskSettings(**options)
    settings.check()
    plan = _plan(model, [images] if isinstance(images, str | os.PathLike) else images, Path(out), settings, names)
    processes = Processes(settings.device)
    processes.wait()  # all have looked at the folder as it was
    with plan.folder, working(plan.model, processes.device or _default_device()):
        processes.wait()  # the first one holds it
        with worker_processes(settings.workers, partial(start_worker, plan.folder.path)) as pool:
            ahead = 2 * settings.batch_size
            made = map_images(plan.batches, plan.steps, pool, processes, waiting=ahead, start=start, advance=advance)
        rows = _published(plan, settings) if processes.is_main else []
        processes.wait()
    unused = plan.unused
    notes = [f"{len(unused)} masks of {settings.override} belong to no image ({unused[0]}, ...)"] if unused else []
    return MaskRun(plan.folder.path, rows, plan.folder.path / SHEET, made, time.monotonic() - began, notes)


class _Plan(NamedTuple):
    """What is to be done: the images in batches, how each is done, whose masks win (overrides) or are left out (excluded)."""

    model: nn.Module
    folder: OwnedFolder
    jobs: list[Job]
    batches: list[list[Job]]
    steps: Steps[Job]
    overrides: dict[str, Path]
    unused: list[str]
    excluded: set[str]


def _plan(
    model: nn.Module | str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    out: Path,
    settings: MaskSettings,
    wanted: Collection[str] | None,
) -> _Plan:
    """Look at the model, the images and the folder. Raises UserError for whatever is unusable."""
    jobs = find_jobs([Path(path) for path in images], out, wanted)
    net, _ = load(model)
    patch, size, max_side = patch_size(net), settings.size, settings.max_side
    check_features(net, settings.kind, settings.block)
    config = {
        "weights": of_weights(net.state_dict()),
        **{name: list(data_config(net)[name]) for name in ("mean", "std")},
        **settings.made_with,
        "about": {"model": str(model) if isinstance(model, str | os.PathLike) else type(net).__name__, **versions()},
    }
    folder = OwnedFolder(out, "relevit masks", config)
    names = sorted({job.name for job in jobs} | set(known_names(out)))
    check_clashes(names)
    check_untouched(out, names)
    sizes = read_sizes(jobs)
    steps = Steps[Job](
        is_done=partial(is_done, out),
        write=partial(finish, out, refine=settings.refine, size=size),
        read=partial(view_of, patch=patch, size=size, max_side=max_side),
        compute=partial(_cut, net, settings.kind, settings.block),
    )
    seen_size = partial(backbone_size, patch=patch, size=size, max_side=max_side)
    batches = make_batches(jobs, sizes, settings.batch_size, seen_size)
    excluded = read_excluded(map(Path, settings.exclude), names)
    overrides, unused = _overrides(settings.override, out, names, sizes)
    return _Plan(net, folder, jobs, batches, steps, overrides, unused, excluded)


def _published(plan: _Plan, settings: MaskSettings) -> list[MaskRow]:
    """Write masks, table and contact sheet of all images done."""
    out = plan.folder.path
    return publish(
        out,
        [job.name for job in plan.jobs],
        overrides=plan.overrides,
        excluded=plan.excluded,
        min_confidence=settings.min_confidence,
        min_pixels=settings.min_pixels,
        title=f"Masks in {out.resolve().name}",
    )


def _overrides(
    folder: str | os.PathLike[str] | None, out: Path, names: Sequence[str], sizes: Mapping[str, Size | str]
) -> tuple[dict[str, Path], list[str]]:
    if folder is None:
        return {}, []
    known: dict[str, Size] = {}
    for name in names:
        size = sizes.get(name)
        if size is None:  # an image of an earlier call
            record = read_record(out, name)
            size = (record.width, record.height) if record is not None and record.width else "unreadable"
        if not isinstance(size, str):
            known[mask_name(name)] = size
    return find_overrides(Path(folder), known)


def _cut(net: nn.Module, kind: Kind, block: int, views: Sequence[np.ndarray | str]) -> list[Seen | str]:
    """What the backbone sees in each view of a batch, or why there is none."""
    seen: dict[int, Seen | str] = {number: view for number, view in enumerate(views) if isinstance(view, str)}
    shapes: dict[tuple[int, ...], list[int]] = {}  # one, unless a file's header tells another size than its picture has
    for number, view in enumerate(views):
        if not isinstance(view, str):
            shapes.setdefault(view.shape, []).append(number)
    for numbers in shapes.values():
        try:
            cut = cut_views(net, np.stack([views[number] for number in numbers]), kind=kind, block=block)
        except torch.OutOfMemoryError as error:
            raise UserError("The device has too little memory: give a smaller --batch-size or --max-side.") from error
        seen |= dict(zip(numbers, object_patches(cut), strict=True))
    return [seen[number] for number in range(len(views))]


def _default_device() -> torch.device | None:
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
