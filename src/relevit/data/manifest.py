"""Which sample is for what: what is held out, and CSV files that say it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from relevit.data.pairing import plain
from relevit.data.reading import read_rows, write_rows
from relevit.errors import UserError

COLUMNS = ("name", "class", "label", "split")
TRAINING, VALIDATION = "training", "validation"


class Row(NamedTuple):
    """One sample in a manifest: its relative name, its class folder, the model's class index, and what it is for."""

    name: str
    class_name: str
    label: int
    split: str = ""


def hold_out(
    rows: Sequence[Row], amount: float, by: Literal["class", "sample"] = "class"
) -> tuple[list[int], list[int]]:
    """The numbers of the samples for training and of those for validation, by class, then by name.

    amount: what is held out, a fraction below 1 (at least one, never all) or a whole number. by: "class" holds out the last
    classes in order (as in the paper, whose validation classes are none of the training ones); "sample" the last samples of
    every class. Raises UserError for another amount, and where nothing is left for training.
    """
    whole = isinstance(amount, int) and not isinstance(amount, bool) and amount >= 1
    if not whole and not (isinstance(amount, float) and 0 < amount < 1):
        raise UserError(f"validation must be a fraction between 0 and 1 or a whole number from 1, not {amount!r}.")

    def kept(count: int) -> int:
        return max(0, count - int(amount)) if whole else count - min(max(1, round(amount * count)), count - 1)

    groups: dict[str, list[int]] = {}
    for index in sorted(range(len(rows)), key=lambda index: rows[index].name):
        groups.setdefault(rows[index].class_name, []).append(index)
    classes = [groups[name] for name in sorted(groups, key=_natural)]
    if by == "class":
        parts = [(group, []) if place < kept(len(classes)) else ([], group) for place, group in enumerate(classes)]
    else:
        parts = [(group[: kept(len(group))], group[kept(len(group)) :]) for group in classes]
    training, validation = ([index for part in side for index in part] for side in zip(*parts, strict=True))
    for split, numbers in ((TRAINING, training), (VALIDATION, validation)):
        if not numbers:
            raise UserError(
                f"No samples are left for {split}: there are {len(rows)} in {len(classes)} classes, and "
                f"validation={amount} holds out by {by}. Give more samples, or another validation."
            )
    return training, validation


def apply_manifest(rows: Sequence[Row], manifest: Sequence[Row]) -> tuple[list[int], list[int]]:
    """The numbers of the samples `rows` that a manifest names for training and for validation, in its order.

    Raises UserError that names samples that are not there.
    """
    where = {row.name: index for index, row in enumerate(rows)}
    absent = [row.name for row in manifest if row.name not in where]
    if absent:
        raise UserError(
            f"{len(absent)} samples of the manifest are not among the data ({absent[0]}, ...): is it of another folder?"
        )
    training, validation = (
        [where[row.name] for row in manifest if row.split == split] for split in (TRAINING, VALIDATION)
    )
    return training, validation


def write_manifest(path: str | os.PathLike[str], manifest: Sequence[Row]) -> None:
    """Write rows to a CSV file with the columns name, class, label, split; atomically."""
    write_rows(path, COLUMNS, manifest)


def read_manifest(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a manifest. Raises UserError when the file is missing or is none."""
    lines = read_rows(path, "a manifest", COLUMNS)
    try:
        return [Row(line["name"], line["class"], int(line["label"]), line["split"]) for line in lines]
    except ValueError as error:
        raise UserError(f"{path} is no manifest: the label must be a number ({error}).") from error


def faults_of_rows(rows: Sequence[Row]) -> list[str]:
    """What keeps a manifest from a run, its labels aside: samples that are for something else than training or
    validation, or named several times, and no sample for training. Each is said of the file ("names a.png twice")."""
    faults = [
        f"has {row.name} for {row.split!r}: the split must be {TRAINING} or {VALIDATION}"
        for row in rows
        if row.split not in (TRAINING, VALIDATION)
    ]
    counts = Counter(plain(row.name) for row in rows)
    for name, count in counts.items():
        if count > 1:
            faults.append(f"names {name} {'twice' if count == 2 else f'{count} times'}: keep one of the lines")
    if all(row.split != TRAINING for row in rows):
        faults.append(f"has no samples for {TRAINING}")
    return faults


def faults_of_labels(rows: Sequence[Row], labels: Mapping[str, int]) -> list[str]:
    """The rows whose label is not that of the model (`labels` by `plain`; samples that it lacks are passed over)."""
    return [
        f"gives {row.name} the label {row.label}, it is class {labels[plain(row.name)]} of the model: mend the label "
        "(-1 leaves it to the model), or give a class map"
        for row in rows
        if row.label not in (-1, labels.get(plain(row.name), row.label))
    ]


def _natural(name: str) -> tuple[int, int, str]:
    """By label where the names are the labels of a data set without folders: 2 before 10."""
    return (0, int(name), name) if name.isascii() and name.isdigit() else (1, 0, name)
