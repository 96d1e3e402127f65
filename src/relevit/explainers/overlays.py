"""Relevance maps of picture files as pictures: what the model sees on the left, its relevance map over it on the right."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import nn

from relevit.data.listing import list_images
from relevit.errors import UserError
from relevit.explainers import forward_with_relevance, on_patches, on_pixels, scale_to_unit, unscaled
from relevit.files import atomic_write
from relevit.folders import OwnedFolder
from relevit.images import read_image
from relevit.models.attention import unsupported_reason
from relevit.models.model_facts import class_name
from relevit.models.view import EvaluationView
from relevit.models.working import device_of, working
from relevit.report.panels import Answer
from relevit.report.pictures import enlarged, overlay, png

_SMALLEST = 192  # smaller views are enlarged by whole pixels to about this many


class Explained(NamedTuple):
    """One picture: its file, the overlay's file, the predicted class with its probability, the class that the map explains,
    and both by name.

    `map_file` holds the relevance of each patch, not scaled, as float32 (rows, columns); None if not asked for. Where the
    picture could not be read, `fault` says why and nothing was written.
    """

    source: Path
    overlay: Path
    map_file: Path | None = None
    predicted: int = -1
    probability: float = 0.0
    target: int = -1
    predicted_name: str = ""
    target_name: str = ""
    fault: str | None = None


class Job(NamedTuple):
    """A picture file and the overlay file that it is to become."""

    source: Path
    overlay: Path


def overlay_jobs(pictures: Sequence[str | Path], out: str | Path) -> list[Job]:
    """Which file becomes which overlay below `out`: `cat.jpg` becomes `cat.png`, and of a folder the tree is kept.

    With several folders, each one's tree goes into a folder of its name. Two pictures that differ only in their suffix get it
    into the name (`cat_jpg.png`). Raises UserError for a path that does not exist, a folder without pictures, and two pictures
    that would become the same overlay.
    """
    out, folders = Path(out), sum(Path(path).is_dir() for path in pictures)
    pairs: list[tuple[Path, Path]] = []  # (file, name below out without suffix)
    for path in map(Path, pictures):
        if path.is_dir():
            files = list_images(path)
            if not files:
                raise UserError(f"the folder {path} holds no pictures")
            top = Path(path.resolve().name) if folders > 1 else Path()
            pairs += [(file, top / file.relative_to(path).with_suffix("")) for file in files]
        elif path.is_file():
            pairs.append((path, Path(path.stem)))
        else:
            raise UserError(f"there is no picture or folder {path}")
    pairs = list(dict.fromkeys(pairs))
    alike = Counter(name for _, name in pairs)
    jobs: dict[Path, Path] = {}  # overlay -> file
    for file, name in pairs:
        if alike[name] > 1:
            name = name.with_name(f"{name.name}_{file.suffix[1:].lower()}")
        target = out / f"{name}.png"
        if target in jobs and jobs[target].resolve() != file.resolve():
            raise UserError(
                f"{jobs[target]} and {file} would both become {target}: explain them one after the other, with two --out"
            )
        if target.resolve() == file.resolve():
            raise UserError(f"the overlay of {file} would overwrite the picture itself: choose another --out")
        jobs[target] = file
    return [Job(file, target) for target, file in jobs.items()]


def write_overlays(
    model: nn.Module,
    view: EvaluationView,
    jobs: Sequence[Job],
    *,
    target: int | None = None,
    explainer: str = "gae",
    raw: bool = False,
    overwrite: bool = False,
    out: str | Path | None = None,
    batch_size: int = 8,
    advance: Callable[[int], object] = lambda count: None,
) -> Iterator[Explained]:
    """Writes an overlay for each picture, and yields what the model says of it.

    Args:
        model, view: as `relevit.load` gives them; the map lies on the part of the picture that the view cuts out.
        jobs: from `overlay_jobs`.
        target: the class whose map is shown; None for the predicted class of each picture.
        explainer: a name in `relevit.explainers.EXPLAINERS`.
        raw: writes the relevance of each patch, not scaled, beside each overlay as .npy, too.
        overwrite: replaces files that are there.
        out: the folder of the overlays; what the same call left there when it was killed is replaced, too.
        batch_size: pictures in one forward pass.
        advance: called with a number of pictures that are done.

    Raises:
        UserError: before the first forward pass, if a file to be written is there already and `overwrite` is false; if the model
            is not supported or has no class `target`.
    """
    planned = [path for job in jobs for path in (job.overlay, *([job.overlay.with_suffix(".npy")] if raw else []))]
    present = [path for path in planned if path.exists()]
    files = {"files": [os.path.relpath(path, out or ".") for path in planned]}
    folder = None
    if out is not None:
        folder = OwnedFolder(out, "relevit explain", files, may_hold=None, compare=lambda old, new: [])
    if present and not overwrite and not (folder is not None and folder.goes_on):
        if folder is not None:
            folder.tidy()
        more = f" and {len(present) - 1} more files are" if len(present) > 1 else " is"
        raise UserError(f"{present[0]}{more} there already: choose another --out, or give --overwrite to replace them")
    return _held(folder, _written(model, view, jobs, target, explainer, raw, batch_size, advance))


def _held(folder: OwnedFolder | None, written: Iterator[Explained]) -> Iterator[Explained]:
    """What is written, while the folder is held; then the pictures in it are the user's."""
    with folder or nullcontext():
        yield from written
        if folder is not None:
            folder.forget()


def _save_array(values: np.ndarray, file: BinaryIO) -> None:
    np.save(file, values)


def _written(
    model: nn.Module,
    view: EvaluationView,
    jobs: Sequence[Job],
    target: int | None,
    explainer: str,
    raw: bool,
    batch_size: int,
    advance: Callable[[int], object],
) -> Iterator[Explained]:
    device = device_of(model)
    for start in range(0, len(jobs), batch_size):
        batch, views = [], []
        for job in jobs[start : start + batch_size]:
            try:
                views.append(view(read_image(job.source)))
                batch.append(job)
            except UserError as error:
                yield Explained(job.source, job.overlay, fault=str(error))
                advance(1)
        if not batch:
            continue
        images = torch.stack(views).to(device)  # (batch, 3, height, width)
        with torch.no_grad():
            logits, relevance = unscaled(model, images, target, explainer)
        patches = on_patches(relevance, model, images)
        maps = scale_to_unit(on_pixels(relevance, images))
        best = logits.float().softmax(dim=1).max(dim=1)
        for i, job in enumerate(batch):
            atomic_write(job.overlay, png(side_by_side(view.restore(images[i]), maps[i].float().cpu().numpy())))
            map_file = job.overlay.with_suffix(".npy") if raw else None
            if map_file is not None:
                values = patches[i].float().cpu().numpy()
                atomic_write(map_file, partial(_save_array, values))
            predicted = int(best.indices[i])
            wanted = predicted if target is None else target
            names = class_name(model, predicted), class_name(model, wanted)
            yield Explained(job.source, job.overlay, map_file, predicted, float(best.values[i]), wanted, *names)
            advance(1)


def looked_at(
    model: nn.Module, view: EvaluationView, picture: Any, with_map: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """What a model sees of one picture, uint8 (height, width, 3), and its map of the predicted class in [0, 1], (height, width);
    None for a model without maps. The model's mode is as before."""
    values = view(picture)
    shown = view.restore(values)
    if not with_map or unsupported_reason(model) is not None:
        return shown, None
    with working(model) as device, torch.no_grad():
        return shown, forward_with_relevance(model, values[None].to(device))[1][0].float().cpu().numpy()


def said(
    who: str, model: nn.Module, predicted: int, confidence: float, right: bool, names: Mapping[int, str]
) -> Answer:
    """What a model said, for a panel: the class by its name among `names`, else by the model's own."""
    known = names[predicted] if predicted in names else class_name(model, predicted)
    text = known if predicted >= 0 else "no number"
    return Answer(who, text, min(1.0, float(np.nan_to_num(confidence))), right)


def side_by_side(image: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """The image, uint8 (height, width, 3), and beside it the image under its map in [0, 1], (height, width); small ones enlarged."""
    gap = np.full((image.shape[0], max(1, image.shape[1] // 56), 3), 255, np.uint8)
    pair = np.concatenate([image, gap, overlay(image, relevance)], axis=1)
    return enlarged(pair, max(1, round(_SMALLEST / max(image.shape[:2]))))
