"""Set A, the classes whose samples were used for fine-tuning, against the rest (Fig. 4 and appendix I of the paper)."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from relevit.data.manifest import COLUMNS, TRAINING, read_manifest
from relevit.data.reading import read_lines
from relevit.errors import UserError
from relevit.evaluation.accuracy.predictions import Predictions

ClassSet = str | os.PathLike[str] | Collection[str]


def read_class_set(given: ClassSet) -> list[str]:
    """Names of classes, sorted: wnids, class indices, the model's own names, or folders' names.

    given: the names; a text file with one a line; or a run's `split.csv`, whose training classes are taken. Raises
    UserError for a file that cannot be read or names no class.
    """
    if not isinstance(given, str | os.PathLike):
        names = [str(each) for each in given]
    else:
        path = Path(given)
        lines = read_lines(path, "a class a line, or be a run's split.csv")
        if lines and lines[0].strip() == ",".join(COLUMNS):
            names = [row.class_name for row in read_manifest(path) if row.split == TRAINING]
        else:
            names = [line.split("#")[0].strip() for line in lines]
    found = sorted({name for name in names if name})
    if not found:
        raise UserError(f"{given} names no class: expected a class a line, or a run's split.csv with training samples")
    return found


def in_set(
    predictions: Predictions,
    names: Collection[str],
    indices: Collection[int],
    classes: Mapping[str, int] | None = None,
) -> Bool[np.ndarray, " images"]:
    """Whether an image is of set A: one of `names`, or of the model's `indices`.

    That is told by the image's own class, its group: by its name, or by its index where `classes` has one.
    Of a group that is neither, the first right answer tells, also where several would be right.
    """
    chosen = set(indices)
    known = {} if classes is None else classes
    named = {name: True for name in names} | {
        name: index in chosen for name, index in known.items() if name not in names
    }
    rows = zip(predictions.groups.tolist(), predictions.answers, strict=True)
    return np.array([named.get(group, bool(right) and right[0] in chosen) for group, right in rows], dtype=bool)
