"""Masks of image files without annotation: a run over files, folders and trees that goes on where it was stopped.

The backbone runs in batches in this process; worker processes read the images and refine the masks. Which images make a
batch follows from the names and sizes of all of them, not from what is done already nor from the number of processes: a
run that was killed, or is shared by several processes, ends with the same bits.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from torch import nn

from relevit.errors import UserError
from relevit.files import atomic_write
from relevit.masking.features import Kind
from relevit.masking.make import check_features, check_numbers, cut_views, object_patches
from relevit.masking.refinement import MAX_SIDE, backbone_size
from relevit.masking.run.plan import Size, check_clashes, check_folder, find_jobs, make_batches, read_sizes
from relevit.masking.run.publish import (
    SHEET,
    MaskRow,
    check_untouched,
    find_overrides,
    mask_name,
    publish,
    read_excluded,
)
from relevit.masking.run.state import (
    HIDDEN,
    Job,
    finish,
    finish_unreadable,
    is_done,
    known_names,
    read_record,
    start_worker,
    view_of,
)
from relevit.models.attention import patch_size
from relevit.models.fingerprints import of_weights as fingerprint
from relevit.models.loading import data_config, load
from relevit.models.working import working
from relevit.processes import leave_at_exit
from relevit.versions import versions

_AHEAD = 2  # batches that are read while the backbone is busy with another


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
    kind: Kind = "key",
    block: int = -1,
    refine: bool = True,
    size: int | None = None,
    max_side: int = MAX_SIDE,
    min_confidence: float = 0.0,
    min_pixels: int = 520,
    override: str | os.PathLike[str] | None = None,
    exclude: Sequence[str | os.PathLike[str]] = (),
    batch_size: int = 16,
    workers: int = 0,
    device: str | torch.device | None = None,
    start: Callable[[int], object] = lambda total: None,
    advance: Callable[[int], object] = lambda count: None,
) -> MaskRun:
    """Make a mask for each image, and write masks, masks.csv and a contact sheet into the folder `out`.

    images: files, and folders whose trees are kept (of several folders each tree goes into a folder of its name), so
    that `finetune(..., masks=out)` takes the result as it is. model: a module, used as it is, or what `relevit.load`
    takes. kind, block, refine, size, max_side: see `masks.automatic`.

    Masks with a confidence below `min_confidence` or of fewer than `min_pixels` pixels (protocol: 520) are left out, as
    are those named in the files `exclude`, one a line. A mask of the same relative name in the folder `override` wins.
    Thresholds, exclusions and overrides may differ in the next call: images done are not done again.

    The same call goes on after an interruption. With another model or other features in the same folder it is refused,
    and so is a folder that holds anything else. An image that cannot be read is in the table with the reason. Started by
    `accelerate launch`, every process does its share; the first writes the result, and it alone returns the rows.

    start, advance: called with the number of images to do in this process, and with a number of them that are done.
    Raises UserError for unusable arguments before any work.
    """
    began = time.monotonic()
    check_numbers(size=size, max_side=max_side, batch_size=batch_size)
    if not 0 <= min_confidence <= 1 or min_pixels < 0 or workers < 0:
        raise UserError("min_confidence must lie in 0 to 1, min_pixels and workers must not be below 0.")
    out = Path(out)
    paths = [Path(path) for path in ([images] if isinstance(images, str | os.PathLike) else images)]
    jobs = find_jobs(paths, out)
    processes = _processes(device)
    net, _ = load(model)
    home = torch.device(device) if device is not None and processes.num_processes == 1 else processes.device
    patch = patch_size(net)
    check_features(net, kind, block)
    config = {
        "weights": fingerprint(net.state_dict()),
        **{name: list(data_config(net)[name]) for name in ("mean", "std")},
        **{"kind": kind, "block": block, "refine": refine, "size": size, "max_side": max_side},
        "about": {"model": str(model) if isinstance(model, str | os.PathLike) else type(net).__name__, **versions()},
    }
    check_folder(out, config)
    names = sorted({job.name for job in jobs} | set(known_names(out)))
    check_clashes(names)
    check_untouched(out, names)
    excluded = read_excluded(map(Path, exclude), names)
    sizes = read_sizes(jobs)
    overrides, unused = _overrides(override, out, names, sizes)
    processes.wait_for_everyone()  # all have looked at the folder as it was
    if processes.is_main_process:
        atomic_write(out / HIDDEN / "config.json", json.dumps(config, indent=2) + "\n")

    # The images that are not done, a batch at a time. Of a batch in which any is not, the backbone sees all.
    batches = make_batches(
        jobs, sizes, batch_size, lambda w, h: backbone_size(w, h, patch, size=size, max_side=max_side)
    )
    mine = batches[processes.process_index :: processes.num_processes]
    missing = {job.name for batch in mine for job in batch if not is_done(out, job)}
    start(len(missing))
    with working(net, home), _executor(workers) as pool:
        pending: set[Future] = set()
        for batch, read in _ahead([b for b in mine if any(j.name in missing for j in b)], pool, patch, size, max_side):
            views: dict[tuple[int, ...], list[tuple[Job, np.ndarray]]] = {}
            for job, future in zip(batch, read, strict=True):
                view = future.result()
                if isinstance(view, np.ndarray):
                    views.setdefault(view.shape, []).append((job, view))
                elif job.name in missing:
                    pending.add(pool.submit(finish_unreadable, out, job, view))
            for group in views.values():  # one, unless a file's header tells another size than its picture has
                found = object_patches(_cut(net, np.stack([view for _, view in group]), kind, block))
                for (job, _), (patches, eigenvalues) in zip(group, found, strict=True):
                    if job.name in missing:
                        pending.add(pool.submit(finish, out, job, patches, eigenvalues, refine, size))
            pending = _settle(pending, 2 * batch_size, advance)
        _settle(pending, 0, advance)
    processes.wait_for_everyone()
    made, seconds = sum(gather_object([len(missing)])), time.monotonic() - began

    rows: list[MaskRow] = []
    if processes.is_main_process:
        rows = publish(
            out,
            [job.name for job in jobs],
            overrides=overrides,
            excluded=excluded,
            min_confidence=min_confidence,
            min_pixels=min_pixels,
            title=f"Masks in {out.resolve().name}",
        )
    processes.wait_for_everyone()
    notes = [f"{len(unused)} masks of {override} belong to no image ({unused[0]}, ...)"] if unused else []
    return MaskRun(out, rows, out / SHEET, made, seconds, notes)


def _processes(device: str | torch.device | None) -> PartialState:
    """Accelerate's view of the processes. On processors they must be asked for, or each would take itself for alone."""
    asked = parse_flag_from_env("ACCELERATE_USE_CPU") or (device is not None and torch.device(device).type == "cpu")
    cpu = asked or not torch.accelerator.is_available()
    leave_at_exit()
    return PartialState(cpu=cpu, timeout=timedelta(days=7))  # one may wait long for the others


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


def _ahead(
    batches: Sequence[list[Job]], pool: Executor, patch: tuple[int, int], size: int | None, max_side: int
) -> Iterator[tuple[list[Job], list[Future]]]:
    """Every batch with its images' views, which are read while others are worked on."""
    queue: deque[tuple[list[Job], list[Future]]] = deque()
    for batch in batches:
        queue.append((batch, [pool.submit(view_of, job, patch, size, max_side) for job in batch]))
        if len(queue) > _AHEAD:
            yield queue.popleft()
    yield from queue


def _cut(net: nn.Module, views: np.ndarray, kind: Kind, block: int) -> Any:
    try:
        return cut_views(net, views, kind=kind, block=block)
    except torch.OutOfMemoryError as error:
        raise UserError("The device has too little memory: give a smaller --batch-size or --max-side.") from error


def _settle(pending: set[Future], most: int, advance: Callable[[int], object]) -> set[Future]:
    """Wait until at most `most` are left; raises what one of those that are done has raised."""
    while True:
        done, pending = wait(pending, timeout=0 if len(pending) <= most else None, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        advance(len(done))
        if len(pending) <= most:
            return pending


class _Here(Executor):
    """Does everything at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


@contextmanager
def _executor(workers: int) -> Iterator[Executor]:
    """A context with `workers` processes, or none; when it ends by an exception, what waits is not begun."""
    if not workers:
        yield _Here()
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise UserError(
            "A worker process ended unexpectedly, probably for want of memory: give fewer --workers. "
            "The same command goes on where it was."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
