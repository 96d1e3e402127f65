"""Set A, the classes whose samples were used for fine-tuning, against the rest (Fig. 4 and appendix I of the paper)."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from torch import nn

from relevit.data.classes import match_classes
from relevit.data.manifest import COLUMNS, TRAINING, read_manifest
from relevit.errors import UserError
from relevit.evaluation.predictions import Predictions

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
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{path} cannot be read ({reason}): give a file with a class a line, or a run's split.csv"
            ) from error
        if lines and lines[0].strip() == ",".join(COLUMNS):
            names = [row.class_name for row in read_manifest(path) if row.split == TRAINING]
        else:
            names = [line.split("#")[0].strip() for line in lines]
    found = sorted({name for name in names if name})
    if not found:
        raise UserError(f"{given} names no class: expected a class a line, or a run's split.csv with training samples")
    return found


def indices_of(names: Iterable[str], model: nn.Module, class_map: Any = None) -> dict[str, int]:
    """The model's class of each name that has one."""
    return match_classes(names, model, class_map).classes


def in_set(predictions: Predictions, names: Collection[str], indices: Collection[int]) -> Bool[np.ndarray, " images"]:
    """Whether an image is of set A: its class has one of `names`, or one of its answers is among the model's `indices`."""
    named, classes = set(names), set(indices)
    by_name = np.isin(predictions.groups, sorted(named)) if len(predictions) else np.zeros(0, bool)
    by_answer = np.array([not classes.isdisjoint(each) for each in predictions.answers], dtype=bool)
    return by_name | by_answer
