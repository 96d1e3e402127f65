"""Images to models in batches: each image is read once, and each way of presenting it to a model is computed once.

An image that cannot be read, or not be presented, is a fault of its own: the others of its batch go on. Batches begin anew at
a shard, so that the images that share a batch, and with them the last bits of a model's answers, are always the same: whatever
is done already, and however many processes share the work.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from relevit.data.sample import Sample
from relevit.data.sets import ImageSet, Item, StreamSet
from relevit.errors import UserError
from relevit.evaluation.shards import STREAM, shard_ranges
from relevit.models.view import EvaluationView, as_picture

Transform = Callable[[Any], Tensor]


@dataclass(frozen=True, eq=False)
class Framing:
    """How a model is shown an image: its own view of it alone, or with the mask in the same frame.

    kind: "image", the picture alone: (3, height, width). With the object and the pixels to ignore, both boolean (height,
    width): "crop", in the model's own view, or "squash", the whole picture resized to the input size, whatever its shape.
    "soft": in its own view with the mask as it is there, fractions at the object's edge, alone.
    """

    view: Any
    kind: Literal["image", "crop", "squash", "soft"] = "image"

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for framings that give the same tensors."""
        facts = view_facts(self.view)
        return self.kind, json.dumps(facts) if facts else str(id(self.view))

    def __call__(self, sample: Any) -> tuple[Tensor, ...]:
        """The tensors of an image. Raises UserError for one that cannot be shown to the model."""
        image = sample.image
        if self.kind == "image":
            picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
            return (picture if isinstance(picture, Tensor) else self.view(picture),)
        if isinstance(image, Tensor):  # goes to the model as it is
            size = (3, self.view.height, self.view.width)
            if tuple(image.shape) != size:
                raise UserError(f"the tensor is {tuple(image.shape)}, the model takes {size}")
            return image, *map(torch.from_numpy, _planes(sample))
        if self.kind == "squash":
            return squash(self.view, sample)
        framed = self.view.with_mask(image, sample.foreground, sample.ignore)
        return framed[:2] if self.kind == "soft" else (framed.image, framed.mask >= 0.5, framed.ignore)


def _planes(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The object and the ignored pixels, boolean (height, width)."""
    mask = sample.foreground >= 0.5
    return mask, np.zeros(mask.shape, bool) if sample.ignore is None else np.array(sample.ignore, bool)


def squash(
    view: EvaluationView, sample: Sample
) -> tuple[Float[Tensor, "3 height width"], Bool[Tensor, "height width"], Bool[Tensor, "height width"]]:
    """A sample's whole picture at the model's input size, resized bilinearly (by PIL, antialiased) and normalised; its mask and
    ignored pixels resized to the nearest."""
    size = (view.width, view.height)
    picture = as_picture(sample.image).resize(size, Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    mask, ignored = (
        torch.from_numpy(np.array(Image.fromarray(plane.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0)
        for plane in _planes(sample)
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


class Read(NamedTuple):
    """Some images of a shard, read once: the shard's number, how many, and by its number a batch for each wanted framing."""

    shard: int
    size: int
    framed: dict[int, Batch]


def batches(
    images: ImageSet | StreamSet,
    framings: Sequence[Any],
    wanted: Callable[[int], Collection[int]],
    *,
    batch_size: int,
    workers: int = 0,
    pin: bool = False,
) -> Generator[Read, None, None]:
    """The images of a set, shard by shard.

    Args:
        images: a set; one that can only be read from its beginning to its end is read in this process.
        framings: how models are shown an image.
        wanted: the numbers of the framings that are wanted of a shard. A shard of none is passed over; but all of a stream
            come, so that the last one tells how many there are.
        batch_size: images in a batch at most; batches begin anew at a shard.
        workers: processes that read images; 0 reads in this one.
        pin: for a GPU.

    Raises UserError where such a process ends unexpectedly.
    """
    if isinstance(images, StreamSet):
        yield from _of_stream(images, framings, wanted, batch_size)
        return
    loader = DataLoader(
        _Shown(images, framings),
        batch_sampler=_keys(len(images), wanted, batch_size),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_begin_worker if workers else None,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "A process that reads images ended unexpectedly, probably for want of memory: give fewer workers. "
            "With the same out, the same call goes on where it was."
        ) from error


class _Key(NamedTuple):
    shard: int
    place: int
    framings: tuple[int, ...]


def _keys(length: int, wanted: Callable[[int], Collection[int]], batch_size: int) -> Iterator[list[_Key]]:
    """The keys of each batch, made as they are needed: a set may have millions."""
    for shard, places in enumerate(shard_ranges(length)):
        framings = tuple(sorted(wanted(shard)))
        for first in range(0, len(places) if framings else 0, batch_size):
            yield [_Key(shard, place, framings) for place in places[first : first + batch_size]]


class _Row(NamedTuple):
    """An image in the wanted framings: its tensors, or why there are none."""

    key: _Key
    item: Item
    shown: dict[int, tuple[Tensor, ...] | str]


class _Shown(Dataset[_Row]):
    def __init__(self, images: ImageSet, framings: Sequence[Any]) -> None:
        self.images, self.framings = images, framings

    def __getitem__(self, key: _Key) -> _Row:
        try:
            sample = self.images.read(key.place)
        except UserError as error:
            item = self.images.item(key.place)
            return _Row(key, item, dict.fromkeys(key.framings, str(error).removeprefix(f"{item.name}: ")))
        return _show(self.images, self.framings, key, sample)


def _of_stream(
    images: StreamSet, framings: Sequence[Any], wanted: Callable[[int], Collection[int]], batch_size: int
) -> Iterator[Read]:
    for shard, members in groupby(enumerate(images), key=lambda member: member[0] // STREAM):
        numbers = tuple(sorted(wanted(shard)))
        shown = (_show(images, framings, _Key(shard, place, numbers), sample) for place, sample in members)
        while some := list(islice(shown, batch_size)):
            yield _collate(some)


def _show(images: ImageSet | StreamSet, framings: Sequence[Any], key: _Key, sample: Any) -> _Row:
    shown: dict[int, tuple[Tensor, ...] | str] = {}
    for number in key.framings:
        try:
            shown[number] = framings[number](sample)
        except UserError as error:
            shown[number] = str(error)
    return _Row(key, images.item(key.place, sample), shown)


def _collate(rows: list[_Row]) -> Read:
    made = {}
    for number in rows[0].key.framings:
        every = [(row.item, row.shown[number]) for row in rows]
        read = [(item, tensors) for item, tensors in every if not isinstance(tensors, str)]
        made[number] = Batch(
            [item for item, _ in read],
            tuple(torch.stack(planes) for planes in zip(*(tensors for _, tensors in read), strict=True)),
            [(item, reason) for item, reason in every if isinstance(reason, str)],
        )
    return Read(rows[0].key.shard, len(rows), made)


def _begin_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)  # its threads do not outlive the fork: it would wait for them
