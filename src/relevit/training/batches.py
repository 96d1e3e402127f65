"""Samples on their way to the loop: what a data set yields, checked once, through views, in batches, in order.

Everything random about an item comes from (seed, epoch, index) alone, and the order of an epoch from (seed, epoch): a
run that goes on after an interruption needs no state of a random number generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from relevit.data.checks import has_object
from relevit.data.composition.compose import Backgrounds
from relevit.data.folder import check_files
from relevit.data.manifest import Row
from relevit.data.sample import Sample, as_sample
from relevit.data.sets import ImageSet
from relevit.errors import Fault, FaultsError, UserError

Key = tuple[int, int]  # epoch, index


def seed_from(*numbers: int) -> int:
    """A seed that mixes several non-negative numbers: neighbouring numbers give unrelated random streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _fault(sample: Sample, num_classes: int, needs_labels: bool) -> str | None:
    """What makes a sample useless for training, beyond what `as_sample` refuses."""
    if sample.mask is None:
        return f"{sample.name}: there is no mask"
    if not has_object(sample.mask):
        return f"{sample.name}: the mask is empty"
    if sample.label >= num_classes or (sample.label < 0 and needs_labels):
        return f"{sample.name}: the label {sample.label} is not one of the model's classes 0 to {num_classes - 1}"
    if isinstance(sample.image, Tensor) and not bool(sample.image.isfinite().all()):
        return f"{sample.name}: the image has values that are not finite"
    return None


@dataclass(frozen=True)
class CheckedSamples:
    """A data set without bad samples, with a manifest row and a hash of the content for each sample."""

    samples: Any
    rows: list[Row]
    hashes: list[bytes]

    @property
    def fingerprint(self) -> str:
        """A hash of all names, labels and contents in their order."""
        digest = hashlib.blake2b(digest_size=16)
        for row, content in zip(self.rows, self.hashes, strict=True):
            digest.update(f"{row.name}\0{row.label}\0".encode() + content)
        return digest.hexdigest()

    def part(self, indices: Sequence[int], split: str) -> CheckedSamples:
        """The samples at `indices`, whose rows then say what they are for."""
        rows = [self.rows[index]._replace(split=split) for index in indices]
        return CheckedSamples(Subset(self.samples, list(indices)), rows, [self.hashes[index] for index in indices])


def _content(sample: Sample) -> bytes:
    pixels = sample.image.numpy() if isinstance(sample.image, Tensor) else np.asarray(sample.image)
    ignore = b"" if sample.ignore is None else np.packbits(sample.ignore).tobytes()
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(sample.mask).tobytes() + ignore)
    return digest.digest()


def check_dataset(
    samples: Any,
    num_classes: int,
    needs_labels: bool,
    split: str = "training",
    skip_bad: bool = False,
    faults: Sequence[Fault] = (),
) -> CheckedSamples:
    """Read every sample of a data set once, before any training, and check it.

    Raises FaultsError (a UserError) with the list of all faults; with `skip_bad`, bad samples are left out instead. `faults`:
    those that are known already, of samples that are not in the data set. A data set that does not yield the same picture twice (it draws at random by itself) has no hashes of the content.
    """
    images = samples if isinstance(samples, ImageSet) else None
    found = list(faults)
    kept: list[int] = []
    rows: list[Row] = []
    hashes: list[bytes] = []
    for index in range(len(samples)):
        try:
            sample = as_sample(samples[index], index)
            reason = _fault(sample, num_classes, needs_labels)
            content = b"" if reason else _content(sample)
            if not kept and not reason and _content(as_sample(samples[index], index)) != content:
                content = b""
        except UserError as error:
            reason = str(error)
        if reason:
            told = None if images is None else check_files(images, index)
            name = images.names[index] if images is not None else f"{split} sample {index}"
            found.append(told or Fault("bad sample", name, reason))
            continue
        kept.append(index)
        hashes.append(content if hashes[:1] != [b""] else b"")
        group = str(sample.label) if images is None or images.groups is None else images.groups[index]
        rows.append(Row(sample.name, group, sample.label, split))
    if found and not (skip_bad and kept):
        raise FaultsError(found)
    if not kept:
        raise UserError(f"there are no samples for {split}")
    return CheckedSamples(samples if len(kept) == len(samples) else Subset(samples, kept), rows, hashes)


class Batch(NamedTuple):
    """images (batch, 3, H, W), masks (batch, H, W), ignore (batch, H, W) bool or None, labels (batch,) and names.

    others: a second picture of each sample (batch, 3, H, W), where a method asks for it.
    """

    images: Tensor
    masks: Tensor
    ignore: Tensor | None
    labels: Tensor
    names: list[str]
    others: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        ignore = None if self.ignore is None else self.ignore.to(device, non_blocking=True)
        images, masks, labels = (t.to(device, non_blocking=True) for t in (self.images, self.masks, self.labels))
        others = None if self.others is None else self.others.to(device, non_blocking=True)
        return Batch(images, masks, ignore, labels, self.names, others)


Item = tuple[Any, ...]
"""image, mask, ignore or None, label, name; and a second picture, where a method asks for it."""


def collate(items: list[Item]) -> Batch:
    """Items of equal size to a batch; without an ignore region anywhere, `ignore` is None."""
    images, masks, regions, labels, names, *second = zip(*items, strict=True)
    if len({image.shape for image in images}) > 1:
        raise UserError(f"images of different sizes in one batch: {sorted({tuple(i.shape) for i in images})}")
    ignore = None
    if any(region is not None and bool(region.any()) for region in regions):
        blank = torch.zeros(masks[0].shape, dtype=torch.bool)
        ignore = torch.stack([blank if region is None else region for region in regions])
    others = torch.stack(second[0]) if second else None
    return Batch(torch.stack(images), torch.stack(masks), ignore, torch.tensor(labels), list(names), others)


class Items(Dataset):
    """A data set's samples through a view. An item is asked for by its key (epoch, index).

    alter: a function (sample, index, generator) -> sample, applied first, or None. view: (image, mask, ignore,
    generator) -> tensors of the same three. An image that is a tensor already is used as it is. other: a function as
    alter, whose image makes the item's second picture; the view treats it as the first.
    """

    def __init__(
        self,
        samples: Any,
        view: Callable,
        seed: int = 0,
        alter: Callable | None = None,
        other: Callable | None = None,
    ) -> None:
        self.samples, self.view, self.seed, self.alter, self.other = samples, view, seed, alter, other

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        sample = as_sample(self.samples[index], index)
        generator = torch.Generator().manual_seed(seed_from(self.seed, epoch, index))
        if self.alter is not None:
            sample = self.alter(sample, index, generator)
        if self.other is not None:
            chance = torch.Generator().manual_seed(seed_from(self.seed, epoch, index, 1))
            changed = self.other(sample, index, chance)
            state = generator.get_state()
            second = self.view(changed.image, changed.mask, changed.ignore, generator)[0]
            generator.set_state(state)
            first = self.view(sample.image, sample.mask, sample.ignore, generator)
            return *first, sample.label, sample.name, second
        if isinstance(sample.image, Tensor):
            ignore = None if sample.ignore is None else torch.from_numpy(sample.ignore)
            return sample.image, torch.from_numpy(sample.mask), ignore, sample.label, sample.name
        return *self.view(sample.image, sample.mask, sample.ignore, generator), sample.label, sample.name


def altered_by(alteration: Callable | None, samples: Any, numbers: Any) -> Callable | None:
    """A method's alteration of samples (see methods.py), if it has one, as a function of (sample, index, generator)."""
    if alteration is None:
        return None
    backgrounds = Backgrounds(samples)
    return lambda sample, index, generator: alteration(sample, index, backgrounds, generator, numbers)


class StepBatches(NamedTuple):
    """One optimiser step of this process: its micro-batches as lists of keys, how many samples of each count (none of a
    list that only fills up for another process), and the number of samples over all processes."""

    parts: list[list[Key]]
    counts: list[int]
    samples: int


@dataclass(frozen=True)
class Plan:
    """Which samples every optimiser step sees: each once an epoch, in an order drawn from (seed, epoch), or in their own.

    A step takes batch_size * accumulation * processes samples; the last of an epoch takes what is left.
    """

    length: int
    batch_size: int
    seed: int
    accumulation: int = 1
    processes: int = 1
    rank: int = 0
    shuffle: bool = True

    @property
    def group(self) -> int:
        return self.batch_size * self.accumulation * self.processes

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.length // self.group)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[StepBatches]:
        """The steps of an epoch, from step `start` on."""
        generator = torch.Generator().manual_seed(seed_from(self.seed, epoch))
        drawn = torch.randperm(self.length, generator=generator).tolist()
        order = drawn if self.shuffle else list(range(self.length))
        for number in range(start, self.steps_per_epoch):
            keys = [(epoch, index) for index in order[number * self.group : (number + 1) * self.group]]
            parts, counts = [], []
            for first in range(0, len(keys), self.batch_size * self.processes):
                mine = first + self.rank * self.batch_size
                part = keys[mine : mine + self.batch_size]
                parts.append(part or keys[:1])
                counts.append(len(part))
            yield StepBatches(parts, counts, len(keys))

    def batches(self, epochs: int, epoch: int, start: int) -> Iterator[list[Key]]:
        """The keys of all micro-batches from a position on, for a loader's batch_sampler."""
        for number in range(epoch, epochs):
            for step in self.epoch(number, start if number == epoch else 0):
                yield from step.parts


def _ignore_interrupts(_: int) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which saves and stops


class _Keys:
    """An iterable of lists of keys that may be iterated more than once."""

    def __init__(self, make: Callable[[], Iterator[list[Key]]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[list[Key]]:
        return self.make()


def loader(items: Items, make_batches: Callable[[], Iterator[list[Key]]], workers: int, pinned: bool) -> DataLoader:
    """A loader of batches in the order of `make_batches()`."""
    return DataLoader(
        items,
        batch_sampler=_Keys(make_batches),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pinned,
        worker_init_fn=_ignore_interrupts if workers else None,
    )
