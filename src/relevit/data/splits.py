"""The paper's split: 3 samples each of the first 500 classes for training (set A), one each of the other 414 for
validation, written to a manifest; and other choices of classes and samples (appendices F and H).

The published setup takes "first" from an unsorted directory listing; here it is sorted, or seeded. Merged classes are left
out (protocol, "Training data"). Automatic masks of fewer than 520 pixels are skipped and the next image of the class is
taken (protocol, "Automatic masks"); annotated masks are taken whatever their size.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from relevit.data.annotations import MERGED, Entry, list_masks
from relevit.data.annotations.convert import Examined, examine, fewest_pixels
from relevit.data.annotations.listing import Foreground
from relevit.data.checks import Progress, in_parallel
from relevit.data.classes import ClassMap, match_classes
from relevit.data.manifest import TRAINING, VALIDATION, Row
from relevit.errors import Fault, FaultsError, UserError


class PaperSplit(NamedTuple):
    """The rows (training first, by class, then by sample, each in its order); how many candidates were left out by
    reason; classes with fewer samples than wanted, with their number; faults that were skipped; notes."""

    rows: list[Row]
    left_out: dict[str, int]
    short: dict[str, int]
    faults: list[Fault]
    notes: list[str]


@dataclass(frozen=True)
class Amounts:
    """How many classes and samples are chosen, and in which order.

    The first `classes` classes give `per_class` samples each for training; the last `validation_classes` (None: all the
    others; 0: none) give `validation_per_class` each. Classes are in the order of their names, or in one that
    `class_seed` and the names determine; the samples of a class likewise by `seed`. Raises UserError for impossible ones.
    """

    classes: int = 500
    per_class: int = 3
    validation_classes: int | None = None
    validation_per_class: int = 1
    seed: int | None = None
    class_seed: int | None = None

    def __post_init__(self) -> None:
        at_least("classes", self.classes, 1)
        at_least("per_class", self.per_class, 1)
        at_least("validation_classes", self.validation_classes, 0)
        at_least("validation_per_class", self.validation_per_class, 1)

    def parts(self, order: Sequence[str]) -> list[tuple[str, str, int]] | None:
        """What each class is for, (class, split, samples), of the classes in their order; None where there are too few."""
        held = len(order) - self.classes if self.validation_classes is None else self.validation_classes
        if held < (1 if self.validation_classes is None else 0) or self.classes + held > len(order):
            return None
        training = [(name, TRAINING, self.per_class) for name in order[: self.classes]]
        return training + [(name, VALIDATION, self.validation_per_class) for name in order[len(order) - held :]]


def at_least(name: str, value: int | None, least: int) -> None:
    """Raises UserError for a number below `least`, by the name of its option."""
    if value is not None and value < least:
        raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {value}.")


def paper_split(
    masks: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    format: str = "imagenet-s",
    min_pixels: int | None = None,
    class_list: str | Path | Sequence[str] | None = None,
    class_map: ClassMap | None = None,
    skip_bad: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
    **amounts: Any,
) -> PaperSplit:
    """Choose the samples for training and validation from masks of any format of `relevit.data.annotations`.

    amounts: see `Amounts`. Masks of fewer than `min_pixels` object pixels are skipped (None: 520 for the format tokencut,
    none for others). Merged wnids are left out. A row's label is the class index of the folder (by wnid, by number, or by
    `class_map`), -1 where that is not known. Only the candidates that are needed are read, by class.

    Raises FaultsError for what is wrong with the tree or the candidates (with `skip_bad`, the next is taken), and
    UserError where there are too few classes.
    """
    at_least("min_pixels", min_pixels, 0)
    chosen_by, least = Amounts(**amounts), fewest_pixels(format, min_pixels)
    listing = list_masks(format, Path(masks), None if images is None else Path(images), class_list)
    notes = list(listing.notes)
    groups: dict[str, list[Entry]] = {}
    for entry in sorted(listing.entries, key=lambda entry: _rank(entry.name, chosen_by.seed)):
        groups.setdefault(entry.class_name, []).append(entry)
    merged = sorted(MERGED & groups.keys())
    if merged:  # the reader of ImageNet-S has left them out already
        notes.append(f"{len(merged)} merged classes are left out: {' '.join(merged)}")
    order = sorted(groups.keys() - MERGED, key=lambda name: _rank(name, chosen_by.class_seed))
    parts, faults = chosen_by.parts(order), list(listing.faults)
    if parts is None:
        if faults and not skip_bad:
            raise FaultsError(faults)
        raise UserError(_too_few(masks, len(order), chosen_by))
    outcome = in_parallel(partial(_first, groups, least), parts, workers, progress)
    skipped = [found for _, passed in outcome for found in passed]
    faults += [found for found in skipped if isinstance(found, Fault)]
    if faults and not skip_bad:
        raise FaultsError(faults)
    matched = match_classes(order, None, class_map)
    if matched.unknown:
        notes.append(f"{len(matched.unknown)} classes have no known index: their label is -1, the model tells it later")
    rows, short = list[Row](), dict[str, int]()
    for (name, split, count), (entries, _) in zip(parts, outcome, strict=True):
        rows += [Row(entry.name, name, matched.classes.get(name, -1), split) for entry in entries]
        if len(entries) < count:
            short[name] = len(entries)
    for split in dict.fromkeys(split for _, split, _ in parts):
        if all(row.split != split for row in rows):
            raise UserError(f"No sample of {masks} is usable for {split}: all are too small (--min-pixels) or faulty.")
    return PaperSplit(rows, dict(Counter(found for found in skipped if isinstance(found, str))), short, faults, notes)


def _too_few(masks: str | os.PathLike[str], count: int, amounts: Amounts) -> str:
    held = amounts.validation_classes
    return (
        f"{masks} has {count} classes with masks, too few for {amounts.classes} of training"
        + (f" and {held} of validation" if held is not None else " and at least one of validation")
        + ": give other --classes and --validation-classes."
    )


def _first(
    groups: dict[str, list[Entry]], min_pixels: int, part: tuple[str, str, int]
) -> tuple[list[Entry], list[Examined]]:
    """The first usable entries of a class, as many as wanted, and what was found of those passed over."""
    name, _, count = part
    chosen, passed = list[Entry](), list[Examined]()
    for entry in groups[name]:
        if len(chosen) == count:
            break
        found = examine(entry, min_pixels)
        if isinstance(found, Foreground):
            chosen.append(entry)
        else:
            passed.append(found)
    return chosen, passed


def _rank(name: str, seed: int | None) -> tuple[bytes, str]:
    """Sorts by name, or, with a seed, by a hash of both: an order that no library version and no other sample changes."""
    return (b"" if seed is None else hashlib.sha256(f"{seed}/{name}".encode()).digest(), name)
