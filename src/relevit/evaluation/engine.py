"""One pass over the images of a benchmark for all models: an image is read once, and every view of it computed once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from relevit.errors import UserError
from relevit.evaluation.accuracy.answers import first_five, hits
from relevit.evaluation.accuracy.predictions import Predictions, Unreadable
from relevit.evaluation.shards import STREAM, shard_ranges
from relevit.evaluation.sources import Source, as_text
from relevit.models.view import EvaluationView
from relevit.models.working import device_of

Transform = Callable[[Image.Image], Tensor]
PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runner:
    """A model by name with its preprocessing."""

    name: str
    net: nn.Module
    view: Transform


class Target(NamedTuple):
    """What is right for one model on one benchmark: the answers of every image (None: an item's label), and the classes
    that compete (None: all)."""

    answers: Sequence[tuple[int, ...]] | None
    candidates: list[int] | None


class Batch(NamedTuple):
    """Some images in the views that are wanted: those that could be read, by their places, and the others."""

    shard: int
    indices: list[int]
    labels: list[int]
    names: list[str | None]
    images: dict[int, Tensor]  # by the view's number: (batch, 3, height, width)
    faults: list[tuple[int, str]]
    answers: list[tuple[int, ...]] | None = None  # of a stream's items, which bring them along


class _Key(NamedTuple):
    shard: int
    place: int
    views: tuple[int, ...]


class _Views(Dataset):
    """An image of a data set in the views that are asked for; None in their place, and the reason, if it can't be read."""

    def __init__(self, data: Any, views: Sequence[Transform]) -> None:
        self.data, self.views = data, views

    def __getitem__(self, key: _Key) -> tuple[_Key, dict[int, Tensor] | str, int, str | None]:
        try:
            item = self.data[key.place]
        except UserError as error:
            return key, str(error), -1, None
        image = item.image
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        tensors = {number: image if isinstance(image, Tensor) else self.views[number](image) for number in key.views}
        return key, tensors, item.label, item.name


def _collate(items: list[tuple[_Key, dict[int, Tensor] | str, int, str | None]]) -> Batch:
    read = [(key, views, label, name) for key, views, label, name in items if not isinstance(views, str)]
    first = items[0][0]
    return Batch(
        first.shard,
        [key.place for key, *_ in read],
        [label for _, _, label, _ in read],
        [name or None for *_, name in read],
        {number: torch.stack([views[number] for _, views, _, _ in read]) for number in first.views} if read else {},
        [(key.place, views) for key, views, *_ in items if isinstance(views, str)],
    )


def _ignore_interrupts(_: int) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process


def same_views(runners: Sequence[Runner]) -> tuple[list[Transform], list[int]]:
    """The different views, and for each model the number of its own."""
    views: list[Transform] = []
    keys: list[Any] = []
    numbers = []
    for runner in runners:
        key = view_facts(runner.view) or id(runner.view)
        if key not in keys:
            keys.append(key)
            views.append(runner.view)
        numbers.append(keys.index(key))
    return views, numbers


def view_facts(view: Transform) -> dict[str, Any] | None:
    """What an evaluation view does, ready for JSON; None of any other callable."""
    if type(view) is not EvaluationView:
        return None
    return {
        "size": [view.height, view.width],
        "crop_pct": float(view.crop_pct),
        "crop_mode": view.crop_mode,
        "filter": view.filter.name.lower(),
        "mean": [float(f"{value:.6g}") for value in view.mean.flatten().tolist()],
        "std": [float(f"{value:.6g}") for value in view.std.flatten().tolist()],
    }


def measure(
    source: Source,
    runners: Sequence[Runner],
    targets: Mapping[str, Target],
    todo: Mapping[int, Sequence[str]],
    *,
    batch_size: int,
    workers: int,
    precision: str,
    advance: Callable[[int], object],
) -> Generator[tuple[int, dict[str, Predictions]], None, None]:
    """Each shard in `todo` with the rows of the models that it names there, one after the other.

    The models are in evaluation mode where they are to run (see `models.working.working`). Raises UserError for a label that is no class
    of a model.
    """
    views, numbers = same_views(runners)
    view_of = {runner.name: number for runner, number in zip(runners, numbers, strict=True)}
    ranges = shard_ranges(source.length)

    def batches() -> Iterator[list[_Key]]:
        for shard, names in todo.items():
            wanted = tuple(sorted({view_of[name] for name in names}))
            places = ranges[shard]
            for first in range(0, len(places), batch_size):
                yield [_Key(shard, index, wanted) for index in places[first : first + batch_size]]

    loader = DataLoader(
        _Views(source.data, views),
        batch_sampler=_Again(batches),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=any(device_of(runner.net).type == "cuda" for runner in runners),
        worker_init_fn=_ignore_interrupts if workers else None,
    )
    try:
        for shard, group in itertools.groupby(loader, key=lambda batch: batch.shard):
            chosen = [runner for runner in runners if runner.name in set(todo[shard])]
            yield shard, _shard(source, chosen, view_of, targets, group, precision, advance)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "A process that reads images ended unexpectedly, probably for want of memory: give fewer workers. "
            "With the same out, the same call goes on where it was."
        ) from error


def measure_stream(
    source: Source,
    runners: Sequence[Runner],
    targets: Mapping[str, Target],
    wanted: Callable[[int], Sequence[str]],
    *,
    batch_size: int,
    precision: str,
    advance: Callable[[int], object],
) -> Iterator[tuple[int, dict[str, Predictions]]]:
    """As `measure` for a set that can only be read from its beginning to its end; this process reads it.

    wanted: the models for which a shard is to be done; one of none is passed over. Every shard comes, in order, so that the
    last one tells how many there are.
    """
    views, numbers = same_views(runners)
    view_of = {runner.name: number for runner, number in zip(runners, numbers, strict=True)}
    shards = itertools.groupby(enumerate(source.data), key=lambda pair: pair[0] // STREAM)
    for shard, members in shards:
        names = set(wanted(shard))
        if not names:
            advance(sum(1 for _ in members))
            yield shard, {}
            continue
        chosen = [runner for runner in runners if runner.name in names]
        seen = {number: views[number] for number in {view_of[runner.name] for runner in chosen}}
        batches = (_streamed(shard, batch, seen) for batch in _batched(members, batch_size))
        yield shard, _shard(source, chosen, view_of, targets, batches, precision, advance)


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _streamed(shard: int, items: list[Any], views: Mapping[int, Transform]) -> Batch:
    images = {number: torch.stack([view(item.image) for _, item in items]) for number, view in views.items()}
    places = [place for place, _ in items]
    return Batch(
        shard,
        places,
        [-1] * len(items),
        [item.name for _, item in items],
        images,
        [],
        [(item.label,) for _, item in items],
    )


class _Again:
    """An iterable of lists of keys."""

    def __init__(self, make: Callable[[], Iterator[list[_Key]]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[list[_Key]]:
        return self.make()


@torch.inference_mode()
def _shard(
    source: Source,
    runners: Sequence[Runner],
    view_of: Mapping[str, int],
    targets: Mapping[str, Target],
    batches: Iterator[Batch],
    precision: str,
    advance: Callable[[int], object],
) -> dict[str, Predictions]:
    """The rows of one shard. What the models answer is fetched at its end, so that a device need not wait for us."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {runner.name: [] for runner in runners}
    right: dict[str, list[tuple[int, ...]]] = {runner.name: [] for runner in runners}
    indices: list[int] = []
    labels: list[int] = []
    names: list[str | None] = []
    faults: list[tuple[int, str]] = []
    for batch in batches:
        faults += batch.faults
        indices, labels, names = indices + batch.indices, labels + batch.labels, names + batch.names
        for runner in runners if batch.indices else ():
            answers, candidates = targets[runner.name]
            if batch.answers is not None:
                own = batch.answers
            else:
                own = [(label,) for label in batch.labels] if answers is None else [answers[i] for i in batch.indices]
            logits = _forward(runner.net, batch.images[view_of[runner.name]], precision)
            _check_labels(source.name, runner.name, own, logits.shape[1])
            chosen = None if candidates is None else torch.tensor(candidates, device=logits.device)
            found[runner.name].append(first_five(logits, chosen))
            right[runner.name] += own
        advance(len(batch.indices) + len(batch.faults))
    keys = [source.key(i, name) for i, name in zip(indices, names, strict=True)]
    groups = as_text(
        [str(each[0]) if each else "" for each in right[runners[0].name]]
        if source.is_stream
        else [source.group(i, label) for i, label in zip(indices, labels, strict=True)]
    )
    objects = as_text([str(source.object(i)) for i in indices]) if source.has_objects else None
    unreadable = [Unreadable(i, source.key(i), source.group(i), fault) for i, fault in faults]
    rows = {}
    for runner in runners:
        parts = found[runner.name] or [(torch.zeros(0, 5, dtype=torch.int32), torch.zeros(0))]
        top5 = torch.cat([top for top, _ in parts]).cpu().numpy()
        confidence = torch.cat([each for _, each in parts]).cpu().numpy()
        hit1, hit5 = hits(top5, right[runner.name])
        rows[runner.name] = Predictions(
            keys,
            groups,
            right[runner.name],
            top5,
            confidence,
            hit1,
            hit5,
            objects,
            np.array(indices, np.int64),
            unreadable,
        )
    return rows


def _forward(net: nn.Module, images: Tensor, precision: str) -> Tensor:
    """Logits (batch, classes), float32."""
    home, low = device_of(net), PRECISIONS[precision]
    try:
        with nullcontext() if low is None else torch.autocast(home.type, low):
            return net(images.to(home, non_blocking=True)).float()
    except torch.OutOfMemoryError as error:
        raise UserError("The device has too little memory: give a smaller batch size.") from error


def _check_labels(benchmark: str, model: str, answers: Sequence[tuple[int, ...]], classes: int) -> None:
    wrong = [label for each in answers for label in each if not 0 <= label < classes]
    if wrong:
        raise UserError(f"{benchmark} has the label {wrong[0]}, but {model} knows the classes 0 to {classes - 1}")
