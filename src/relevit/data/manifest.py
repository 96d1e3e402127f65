"""Which sample is for what: splits that are sorted or seeded, never the order of a directory listing, and their CSV
files."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from relevit.data.pairing import plain
from relevit.errors import UserError
from relevit.files import atomic_write

COLUMNS = ("name", "class", "label", "split")
TRAINING, VALIDATION = "training", "validation"


class Row(NamedTuple):
    """One sample in a manifest: its relative name, its class folder, the model's class index, and what it is for."""

    name: str
    class_name: str
    label: int
    split: str = ""


class Split(NamedTuple):
    """The samples for training and, if asked for, for validation, by number, with a row for each (training first, in
    order)."""

    training: list[int]
    validation: list[int] | None
    manifest: list[Row]


def split_samples(
    rows: Sequence[Row],
    validation: float | int | None = None,
    *,
    by: Literal["class", "sample"] = "class",
    seed: int | None = None,
    per_class: int | None = None,
    validation_per_class: int | None = None,
) -> Split:
    """Choose samples for training and for validation, reproducibly.

    validation: None for none; a fraction below 1 or a whole number of what is held out. `by="class"` holds out classes,
    the last in order (as in the paper, whose validation classes are none of the training ones); `by="sample"` holds out
    samples of every class, the last of each. seed: None takes classes and samples sorted by name; a number takes them
    in an order that depends on the seed and the names alone. per_class, validation_per_class: at most so many samples
    of a class, the first in order.

    Raises UserError when nothing is left for training, or for validation that was asked for.
    """
    for name, limit in (("per_class", per_class), ("validation_per_class", validation_per_class)):
        if limit is not None and limit < 1:
            raise UserError(f"{name} must be at least 1, not {limit}.")
    _check_amount(validation)
    groups: dict[str, list[int]] = {}
    for index in sorted(range(len(rows)), key=lambda index: rank(rows[index].name, seed)):
        groups.setdefault(rows[index].class_name, []).append(index)
    # Classes are sorted by label first where the names are the labels of a data set without folders: 2 before 10.
    classes = sorted(groups, key=lambda name: rank(name, seed) if seed is not None else _natural(name))

    chosen: dict[str, list[int]] = {TRAINING: [], VALIDATION: []}
    held = _amount(validation, len(classes)) if by == "class" else 0
    for place, name in enumerate(classes):
        members = groups[name]
        out = _amount(validation, len(members)) if by == "sample" else 0
        inside, outside = members[: len(members) - out], members[len(members) - out :]
        if by == "class" and place >= len(classes) - held:
            inside, outside = [], members
        chosen[TRAINING] += inside[:per_class]
        chosen[VALIDATION] += outside[:validation_per_class]
    _check_left(chosen, validation, by, len(classes), len(rows))
    manifest = [rows[index]._replace(split=split) for split, indices in chosen.items() for index in indices]
    return Split(chosen[TRAINING], chosen[VALIDATION] if validation is not None else None, manifest)


def apply_manifest(rows: Sequence[Row], manifest: Sequence[Row]) -> Split:
    """The split that a manifest describes, of the samples `rows`. Raises UserError that names samples that are not there."""
    where = {row.name: index for index, row in enumerate(rows)}
    absent = [row.name for row in manifest if row.name not in where]
    if absent:
        raise UserError(
            f"{len(absent)} samples of the manifest are not among the data ({absent[0]}, ...): is it of another folder?"
        )
    indices = {split: [where[row.name] for row in manifest if row.split == split] for split in (TRAINING, VALIDATION)}
    return Split(indices[TRAINING], indices[VALIDATION] or None, list(manifest))


def write_manifest(path: str | os.PathLike[str], manifest: Sequence[Row]) -> None:
    """Write rows to a CSV file with the columns name, class, label, split; atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(manifest)
    atomic_write(path, text.getvalue())


def read_manifest(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a manifest. Raises UserError when the file is missing or is none."""
    path = Path(path)
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"The manifest {path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    try:
        return [Row(line["name"], line["class"], int(line["label"]), line["split"]) for line in lines]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no manifest: expected the columns {', '.join(COLUMNS)}, the label a number."
        ) from error


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


def _check_amount(validation: float | int | None) -> None:
    whole = isinstance(validation, int) and not isinstance(validation, bool) and validation >= 1
    fraction = isinstance(validation, float) and 0 < validation < 1
    if validation is not None and not whole and not fraction:
        raise UserError(f"validation must be a fraction between 0 and 1 or a whole number from 1, not {validation!r}.")


def _amount(validation: float | int | None, count: int) -> int:
    """How many of `count` are held out: of a fraction at least one, but never all."""
    if validation is None:
        return 0
    if isinstance(validation, int):
        return min(validation, count)
    return min(max(1, round(validation * count)), count - 1)


def _check_left(
    chosen: dict[str, list[int]], validation: float | int | None, by: str, classes: int, count: int
) -> None:
    wanted = [TRAINING] if validation is None else [TRAINING, VALIDATION]
    for split in wanted:
        if not chosen[split]:
            raise UserError(
                f"No samples are left for {split}: there are {count} in {classes} classes, and validation={validation} "
                f"holds out by {by}. Give more samples, or another validation."
            )


def rank(name: str, seed: int | None) -> tuple[bytes, str]:
    """Sorts by name, or, with a seed, by a hash of both: an order that no library version and no other sample
    changes."""
    return (b"" if seed is None else hashlib.sha256(f"{seed}/{name}".encode()).digest(), name)


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isascii() and name.isdigit() else (1, 0, name)
