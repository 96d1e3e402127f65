"""The samples of a run from what the user gave: folders or data sets, for training and validation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn

from relevit.data.loading import Checked
from relevit.errors import UserError


class Gathered(NamedTuple):
    """Data sets of (image, mask, label, ...) for training and, or None, for validation."""

    training: Any
    validation: Any


def gather(
    samples: Any,
    validation: Any,
    model: nn.Module,
    *,
    masks: str | os.PathLike[str] | None = None,
    class_map: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
    seed: int = 0,
) -> Gathered:
    """Data sets as they are; folders read, checked, and split where there is no validation of its own."""
    for given, role in ((samples, "samples"), (validation, "validation")):
        if given is not None and not isinstance(given, str | os.PathLike) and not hasattr(given, "__getitem__"):
            raise UserError(f"{role} must be a folder or a data set with lengths and items, not {type(given).__name__}")
    return Gathered(samples, validation)


def split_rows(training: Checked, validation: Checked | None) -> Iterator[Mapping[str, Any]]:
    """The rows of a run's split.csv: which sample is for what."""
    for split, checked in (("training", training), ("validation", validation)):
        if checked is not None:
            for index, (name, label) in enumerate(zip(checked.names, checked.labels, strict=True)):
                yield {"split": split, "index": index, "name": name, "label": label}
