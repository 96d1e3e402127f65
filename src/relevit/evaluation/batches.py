"""Images to models in batches: each image is read once, and each way of presenting it to a model is computed once.

An image that cannot be read, or not be presented, is a fault of its own: the others of its batch go on. Batches begin anew at
a shard, so that the images that share a batch, and with them the last bits of a model's answers, are always the same: whatever
is done already, and however many processes share the work.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from relevit.data.sample import Sample
from relevit.errors import UserError
from relevit.evaluation.shards import STREAM, shard_ranges
from relevit.evaluation.sources import Item, Measurable
from relevit.models.view import EvaluationView, as_picture

Transform = Callable[[Any], Tensor]
Advance = Callable[[int], Any]  # called with how many images are done since the last time


@dataclass(frozen=True, eq=False)
class Framing:
    """How a model is shown an image: its own view of it alone, or with the mask in the same frame.

    kind: "image", the picture alone: (3, height, width). With the object and the pixels to ignore, both boolean (height,
    width): "crop", in the model's own view, or "squash", the whole picture resized to the input size, whatever its shape.
    """

    view: Any
    kind: Literal["image", "crop", "squash"] = "image"

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for framings that give the same tensors."""
        facts = view_facts(self.view)
        return self.kind, json.dumps(facts) if facts else str(id(self.view))

    def __call__(self, sample: Any) -> tuple[Tensor, ...]:
        """The tensors of an image. Raises UserError for one that cannot be shown to the model."""
        if self.kind == "image":
            image = Image.fromarray(sample.image) if isinstance(sample.image, np.ndarray) else sample.image
            return (image if isinstance(image, Tensor) else self.view(image),)
        if isinstance(sample.image, Tensor):
            return self._as_it_is(sample)
        if self.kind == "squash":
            return squash(self.view, sample)
        framed = self.view.with_mask(sample.image, sample.mask, sample.ignore)
        return framed.image, framed.mask >= 0.5, framed.ignore

    def _as_it_is(self, sample: Sample) -> tuple[Tensor, ...]:
        assert isinstance(sample.image, Tensor) and sample.mask is not None
        size = (3, self.view.height, self.view.width)
        if tuple(sample.image.shape) != size:
            raise UserError(f"the tensor is {tuple(sample.image.shape)}, the model takes {size}")
        ignore = np.zeros(sample.mask.shape, bool) if sample.ignore is None else np.array(sample.ignore)
        return sample.image, torch.from_numpy(sample.mask >= 0.5), torch.from_numpy(ignore)


def squash(
    view: EvaluationView, sample: Sample
) -> tuple[Float[Tensor, "3 height width"], Bool[Tensor, "height width"], Bool[Tensor, "height width"]]:
    """A sample's whole picture at the model's input size, resized bilinearly (by PIL, antialiased) and normalised; its mask and
    ignored pixels resized to the nearest."""
    assert sample.mask is not None
    size = (view.width, view.height)
    picture = as_picture(sample.image).resize(size, Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    ignore = np.zeros(sample.mask.shape, bool) if sample.ignore is None else np.asarray(sample.ignore, bool)
    mask, ignored = (
        torch.from_numpy(np.array(Image.fromarray(plane.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0)
        for plane in (sample.mask >= 0.5, ignore)
    )
    return view.normalise(picture), mask, ignored


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


def distinct(framings: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """The different framings, by their `key`, and for each of those given the number of its own."""
    keys = [framing.key for framing in framings]
    different = list(dict.fromkeys(keys))
    return [framings[keys.index(key)] for key in different], [different.index(key) for key in keys]


class Batch(NamedTuple):
    """Some images in one framing: those that could be read, with their stacked tensors, and the others with the reason."""

    items: list[Item]
    tensors: tuple[Tensor, ...]  # each (batch, ...); none where no image could be read
    faults: list[tuple[Item, str]]

    @property
    def size(self) -> int:
        """How many images it stands for."""
        return len(self.items) + len(self.faults)


Shard = tuple[int, Iterator[dict[int, Batch]]]  # its number, and its batches, each in the framings that are wanted


def batches(
    images: Measurable,
    framings: Sequence[Any],
    todo: Mapping[int, Collection[int]],
    *,
    batch_size: int,
    workers: int = 0,
    pin: bool = False,
) -> Generator[Shard, None, None]:
    """The shards in `todo`, each with the numbers of the framings that are wanted there, one after the other.

    A shard's batches must be taken before the next shard. workers: processes that read images; 0 reads in this one. pin: for
    a GPU. Raises UserError where such a process ends unexpectedly.
    """
    loader = DataLoader(
        _Shown(images, framings),
        batch_sampler=_Keys(images.length, todo, batch_size),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_begin_worker if workers else None,
    )
    try:
        for shard, group in itertools.groupby(loader, key=lambda pair: pair[0]):
            yield shard, (batch for _, batch in group)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "A process that reads images ended unexpectedly, probably for want of memory: give fewer workers. "
            "With the same out, the same call goes on where it was."
        ) from error


def stream_batches(
    images: Any,
    framings: Sequence[Any],
    wanted: Callable[[int], Collection[int]],
    advance: Advance,
    *,
    batch_size: int,
) -> Iterator[Shard]:
    """As `batches` for a set that can only be read from its beginning to its end; this process reads it.

    wanted: the framings that are wanted of a shard; one of none is passed over. Every shard comes, in order, so that the last
    one tells how many there are.
    """
    for shard, members in itertools.groupby(enumerate(images.data), key=lambda pair: pair[0] // STREAM):
        numbers = sorted(wanted(shard))
        if not numbers:
            advance(sum(1 for _ in members))
            yield shard, iter(())
            continue
        shown = (_show(images, framings, _Key(shard, place, tuple(numbers)), sample) for place, sample in members)
        yield shard, (_collate(some)[1] for some in _in_batches(shown, batch_size))


class _Key(NamedTuple):
    shard: int
    place: int
    framings: tuple[int, ...]


class _Keys:
    """The keys of each batch, made as they are needed: a set may have millions."""

    def __init__(self, length: int, todo: Mapping[int, Collection[int]], batch_size: int) -> None:
        self.length, self.todo, self.batch_size = length, todo, batch_size

    def __iter__(self) -> Iterator[list[_Key]]:
        ranges = shard_ranges(self.length)
        for shard, wanted in self.todo.items():
            framings, places = tuple(sorted(wanted)), ranges[shard]
            for first in range(0, len(places), self.batch_size):
                yield [_Key(shard, place, framings) for place in places[first : first + self.batch_size]]


class _Row(NamedTuple):
    """An image in the wanted framings: its tensors, or why there are none."""

    key: _Key
    item: Item
    shown: dict[int, tuple[Tensor, ...] | str]


class _Shown(Dataset[_Row]):
    def __init__(self, images: Measurable, framings: Sequence[Any]) -> None:
        self.images, self.framings = images, framings

    def __getitem__(self, key: _Key) -> _Row:
        try:
            sample = self.images.read(key.place)
        except UserError as error:
            item = self.images.item(key.place)
            return _Row(key, item, dict.fromkeys(key.framings, str(error).removeprefix(f"{item.name}: ")))
        return _show(self.images, self.framings, key, sample)


def _show(images: Measurable, framings: Sequence[Any], key: _Key, sample: Any) -> _Row:
    shown: dict[int, tuple[Tensor, ...] | str] = {}
    for number in key.framings:
        try:
            shown[number] = framings[number](sample)
        except UserError as error:
            shown[number] = str(error)
    return _Row(key, images.item(key.place, sample), shown)


def _collate(rows: list[_Row]) -> tuple[int, dict[int, Batch]]:
    made = {}
    for number in rows[0].key.framings:
        every = [(row.item, row.shown[number]) for row in rows]
        read = [(item, tensors) for item, tensors in every if not isinstance(tensors, str)]
        made[number] = Batch(
            [item for item, _ in read],
            tuple(torch.stack(planes) for planes in zip(*(tensors for _, tensors in read), strict=True)),
            [(item, reason) for item, reason in every if isinstance(reason, str)],
        )
    return rows[0].key.shard, made


def _in_batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _begin_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)  # its threads do not outlive the fork: it would wait for them
