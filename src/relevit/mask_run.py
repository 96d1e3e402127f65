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
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from torch import nn

from relevit.errors import UserError
from relevit.files import atomic_write
from relevit.images import list_images
from relevit.mask_publish import SHEET, MaskRow, check_untouched, find_overrides, mask_name, publish, read_excluded
from relevit.mask_state import (
    HIDDEN,
    Job,
    finish,
    finish_unreadable,
    is_done,
    known_names,
    read_record,
    start_worker,
    upright_size,
    view_of,
)
from relevit.masks.automatic import check_features, check_numbers, cut_views, object_patches, patch_size
from relevit.masks.features import Kind
from relevit.masks.finish import MAX_SIDE, backbone_size
from relevit.models import data_config, load
from relevit.runfolder import differences, fingerprint
from relevit.surroundings import versions

Size = tuple[int, int]
_AHEAD = 2  # batches that are read while the backbone is busy with another
_HEADERS = 8  # threads that read sizes


class MaskRun(NamedTuple):
    """folder: where the masks lie, class folders and names as those of the images. rows: those of masks.csv. sheet: the
    contact sheet. made: images done by this call, in `seconds`. notes: what the user should know."""

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
    `accelerate launch`, every process does its share; the first writes the result, and all return it.

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
    processes = PartialState(timeout=timedelta(days=7))  # one may wait long for the others
    net = model if isinstance(model, nn.Module) else load(model)[0]
    home = torch.device(device) if device is not None and processes.num_processes == 1 else processes.device
    patch = patch_size(net)
    check_features(net, kind, block)
    config = {
        "weights": fingerprint(net.state_dict()),
        **{name: list(data_config(net)[name]) for name in ("mean", "std")},
        **{"kind": kind, "block": block, "refine": refine, "size": size, "max_side": max_side},
        "about": {"model": str(model) if not isinstance(model, nn.Module) else type(model).__name__, **versions()},
    }
    _check_folder(out, config)
    names = sorted({job.name for job in jobs} | set(known_names(out)))
    _check_clashes(names)
    check_untouched(out, names)
    excluded = read_excluded(map(Path, exclude), names)
    sizes = _sizes(jobs)
    overrides, unused = _overrides(override, out, names, sizes)
    processes.wait_for_everyone()  # all have looked at the folder as it was
    if processes.is_main_process:
        atomic_write(out / HIDDEN / "config.json", json.dumps(config, indent=2) + "\n")

    # The images that are not done, a batch at a time. Of a batch in which any is not, the backbone sees all.
    batches = _batches(jobs, sizes, batch_size, lambda w, h: backbone_size(w, h, patch, size=size, max_side=max_side))
    mine = batches[processes.process_index :: processes.num_processes]
    missing = {job.name for batch in mine for job in batch if not is_done(out, job)}
    start(len(missing))
    with _at_work(net, home), _executor(workers) as pool:
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
    seconds = time.monotonic() - began

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
    return MaskRun(out, rows, out / SHEET, len(missing), seconds, notes)


def find_jobs(paths: Sequence[Path], out: Path) -> list[Job]:
    """The images to do, sorted by name; names as `make_masks` says.

    Raises UserError for a path that is not there, a folder without images, and an `out` in which images lie.
    """
    folders = [path for path in paths if path.is_dir()]
    jobs: dict[str, Job] = {}
    for path in paths:
        if path.is_dir():
            files = list_images(path)
            if not files:
                raise UserError(f"The folder {path} holds no images.")
            if out.resolve().is_relative_to(path.resolve()):
                raise UserError(f"{out} lies in the folder of images {path}: choose an --out of its own, beside it.")
            top = Path(path.resolve().name) if len(folders) > 1 else Path()
            pairs = [(file, top / file.relative_to(path)) for file in files]
        elif path.is_file():
            pairs = [(path, Path(path.name))]
        else:
            raise UserError(f"There is no image or folder {path}.")
        for file, name in pairs:
            other = jobs.setdefault(name.as_posix(), Job(file, name.as_posix()))
            if other.source.resolve() != file.resolve():
                raise UserError(
                    f"{other.source} and {file} would have the same mask: give them one after the other, with two --out."
                )
            if not _can_be_listed(name.as_posix()):
                raise UserError(
                    f"The name {str(file)!r} holds characters that cannot be written down: rename the file."
                )
    return [jobs[name] for name in sorted(jobs)]


def _can_be_listed(name: str) -> bool:
    """Whether a name can stand in a line of a text file."""
    return len(name.splitlines()) == 1 and not any("\ud800" <= letter <= "\udfff" for letter in name)


def _check_folder(out: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that holds masks of another configuration, or anything that no run of ours has put there."""
    file = out / HIDDEN / "config.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose a folder for the masks.")
    if not file.exists():
        if out.is_dir() and any(entry.name != HIDDEN for entry in out.iterdir()):
            raise UserError(
                f"{out} is not empty and holds no masks of ours: choose another --out, nothing is overwritten."
            )
        return
    try:
        old = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}): choose another --out.") from error
    differing = differences(old, json.loads(json.dumps(config)))
    if differing:
        raise UserError(
            f"{out} holds masks of another configuration: {'; '.join(differing)}. Choose another --out, or call it with "
            "these masks' own arguments to go on with them."
        )


def _check_clashes(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(mask_name(name), name)
        if other != name:
            raise UserError(
                f"{other} and {name} would have the same mask: give each image of a folder a name of its own."
            )


def _sizes(jobs: Sequence[Job]) -> dict[str, Size | str]:
    """Width and height of every image, upright, or why it cannot be read."""

    def one(job: Job) -> Size | str:
        try:
            return upright_size(job.source)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(_HEADERS) as pool:
        return dict(zip([job.name for job in jobs], pool.map(one, jobs), strict=True))


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


def _batches(
    jobs: Sequence[Job], sizes: Mapping[str, Size | str], batch_size: int, seen_at: Callable[[int, int], Size]
) -> list[list[Job]]:
    """Images of one size for the backbone, at most `batch_size` of them; those without a size come last."""
    groups: dict[Size, list[Job]] = {}
    for job in jobs:
        size = sizes[job.name]
        groups.setdefault((0, 0) if isinstance(size, str) else seen_at(*size), []).append(job)
    ordered = [groups[key] for key in sorted(groups, key=lambda key: (key == (0, 0), key))]
    return [group[i : i + batch_size] for group in ordered for i in range(0, len(group), batch_size)]


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


@contextmanager
def _at_work(net: nn.Module, device: torch.device) -> Iterator[None]:
    """A context with the model on the device in evaluation mode; both are as before when it ends."""
    modes = [(module, module.training) for module in net.modules()]
    home = next(net.parameters()).device
    try:
        net.to(device).eval()
        yield
    finally:
        net.to(home)
        for module, mode in modes:
            module.training = mode


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
