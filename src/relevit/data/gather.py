"""The samples of a run from what the user gave: folders or data sets, for training and for validation."""

from __future__ import annotations

import os
from typing import Any, Literal

from torch import nn

from relevit.data.loading import Checked, check_dataset
from relevit.data.manifest import TRAINING, VALIDATION, Row, split_samples
from relevit.data.samples import FolderSamples
from relevit.errors import UserError

_HELD_OUT = 0.2  # of the classes of a folder, or of the samples of each class
_MANY = 10  # classes: with fewer, samples of each class are held out, and no classes


def gather(
    samples: Any,
    validation: Any,
    model: nn.Module,
    *,
    needs_labels: bool,
    masks: str | os.PathLike[str] | None = None,
    validation_masks: str | os.PathLike[str] | None = None,
    class_map: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
) -> tuple[Checked, Checked | None]:
    """Training and validation samples, every one of them read and checked.

    A folder's classes are matched to the model's (`class_map`); see `samples.FolderSamples`. validation: a folder or
    data set; a fraction or number of classes to hold out; or None, which holds out a fifth of the classes of a folder
    (of the samples of each class, where it has fewer than ten), and nothing of a data set.

    Raises FaultsError with the list of all faults, and UserError for what is no folder or data set.
    """

    def checked(given: Any, argument: str, its_masks: Any, split: str) -> Checked:
        opened = given
        if isinstance(given, str | os.PathLike):  # contents are checked below, with those of data sets
            opened = FolderSamples(given, its_masks, model=model, class_map=class_map, skip_bad=True, check=False)
        elif not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
            raise UserError(f"{argument} must be a folder or a data set with items, not {type(given).__name__}")
        elif its_masks is not None:
            raise UserError(f"masks are for a folder of {argument}: a data set yields its masks itself")
        return check_dataset(opened, getattr(model, "num_classes", 0), needs_labels, split, skip_bad)

    training = checked(samples, "samples", masks, TRAINING)
    if validation is not None and not isinstance(validation, int | float):
        from_folder = isinstance(validation, str | os.PathLike)
        its_masks = validation_masks if validation_masks is not None or not from_folder else masks
        return training, checked(validation, "validation", its_masks, VALIDATION)
    by: Literal["class", "sample"] = "class"
    if validation is None:
        if not isinstance(samples, str | os.PathLike):
            return training, None
        classes = [row.class_name for row in training.rows]
        few = len(set(classes)) < _MANY and len(set(classes)) < len(classes)
        validation, by = _HELD_OUT, "sample" if few else "class"
    split = split_samples(_Rows(training.rows), validation, by=by)
    assert split.validation is not None  # it was asked for
    return training.part(split.training.indices, TRAINING), training.part(split.validation.indices, VALIDATION)


class _Rows:
    """What `split_samples` needs to know of samples that were read already."""

    def __init__(self, rows: list[Row]) -> None:
        self.manifest = rows

    def __len__(self) -> int:
        return len(self.manifest)


def split_rows(training: Checked, validation: Checked | None) -> list[Row]:
    """The manifest of a run: which sample is for what."""
    return training.rows + (validation.rows if validation else [])
