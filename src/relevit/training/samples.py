"""The samples of a run from what the user gave: folders or data sets, for training and for validation."""

from __future__ import annotations

import os
from typing import Any, Literal

from torch import nn

from relevit.data.folder import class_folder_samples
from relevit.data.manifest import (
    TRAINING,
    VALIDATION,
    Row,
    apply_manifest,
    faults_of_labels,
    faults_of_rows,
    hold_out,
    read_manifest,
)
from relevit.data.open import is_set_with_masks, one_of
from relevit.data.pairing import plain
from relevit.data.sets import ImageSet
from relevit.errors import Fault, UserError
from relevit.models.families import class_count
from relevit.training.batches import CheckedSamples, check_dataset

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
    ignore: str | os.PathLike[str] | None = None,
    manifest: str | os.PathLike[str] | None = None,
    class_map: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
) -> tuple[CheckedSamples, CheckedSamples | None]:
    """Training and validation samples, every one of them read and checked.

    A folder's classes are matched to the model's (`class_map`); see `class_folder_samples`. validation: a folder or
    data set; a fraction or number of classes to hold out; or None, which holds out a fifth of the classes of a folder
    (of the samples of each class, where it has fewer than ten), and nothing of a data set. ignore: the folder of pixels
    to ignore; for validation, too, where that is a folder without masks of its own. manifest: a CSV that names the
    samples for training and for validation, in its order; no others are read, and `validation` is not given.

    Raises FaultsError with the list of all faults, and UserError for what is no folder or data set.
    """

    def checked(
        given: Any, argument: str, its_masks: Any, split: str, its_ignore: Any, names: Any = None
    ) -> CheckedSamples:
        opened = given
        faults: list[Fault] = []
        if isinstance(given, str | os.PathLike):
            opened, faults = _opened(given, its_masks, its_ignore, names, model, class_map)
        elif not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
            raise UserError(f"{argument} must be a folder or a data set with items, not {type(given).__name__}")
        elif its_masks is not None or its_ignore is not None:
            what = "masks are" if its_masks is not None else "ignore is"
            raise UserError(f"{what} for a folder of {argument}: a data set yields its masks itself")
        return check_dataset(opened, class_count(model) or 0, needs_labels, split, skip_bad, faults)

    if manifest is not None:
        if validation is not None:
            raise UserError("validation and manifest both say what is for validation: give one of them.")
        rows = _usable(read_manifest(manifest), manifest)
        named = checked(samples, "samples", masks, TRAINING, ignore, [row.name for row in rows])
        return _as_listed(named, rows, manifest, skip_bad)
    training = checked(samples, "samples", masks, TRAINING, ignore)
    if validation is not None and not isinstance(validation, int | float):
        from_folder = isinstance(validation, str | os.PathLike)
        its_masks = validation_masks if validation_masks is not None or not from_folder else masks
        its_ignore = ignore if from_folder and validation_masks is None else None
        return training, checked(validation, "validation", its_masks, VALIDATION, its_ignore)
    if validation is None and not isinstance(samples, str | os.PathLike):
        return training, None
    return _held_out(training, validation)


def _held_out(training: CheckedSamples, share: float | None) -> tuple[CheckedSamples, CheckedSamples]:
    """Training and validation samples: a fraction or number of classes held out; None as `gather` says."""
    by: Literal["class", "sample"] = "class"
    if share is None:
        classes = [row.class_name for row in training.rows]
        few = len(set(classes)) < _MANY and len(set(classes)) < len(classes)
        share, by = _HELD_OUT, "sample" if few else "class"
    kept, held_out = hold_out(training.rows, share, by)
    return training.part(kept, TRAINING), training.part(held_out, VALIDATION)


def _opened(
    given: str | os.PathLike[str], masks: Any, ignore: Any, names: Any, model: nn.Module, class_map: Any
) -> tuple[ImageSet, list[Fault]]:
    """The samples of a name or folder, labelled for the model, and the faults that names alone tell."""
    if is_set_with_masks(given):
        return one_of(given, None, masks, ignore=ignore, masked=True)[1].labelled_for(model, class_map), []
    known: dict[str, Any] = {"model": model, "class_map": class_map, "ignore": ignore, "names": names}
    return class_folder_samples(given, masks, **known, skip_bad=True, check=False)  # contents are checked later


def _usable(rows: list[Row], path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a manifest, which names each sample once, for training or validation."""
    for fault in faults_of_rows(rows):
        raise UserError(f"{path} {fault}.")
    return rows


def _as_listed(
    checked: CheckedSamples, rows: list[Row], path: str | os.PathLike[str], skip_bad: bool
) -> tuple[CheckedSamples, CheckedSamples | None]:
    """The samples in the manifest's order, training and validation; labels are compared."""
    there = {plain(row.name): row for row in checked.rows}
    for fault in faults_of_labels(rows, {name: row.label for name, row in there.items()}):
        raise UserError(f"{path} {fault}.")
    wanted = [row._replace(name=there[plain(row.name)].name if plain(row.name) in there else row.name) for row in rows]
    if skip_bad:
        wanted = [row for row in wanted if plain(row.name) in there]
        if all(row.split != TRAINING for row in wanted):
            raise UserError(f"Of the samples for {TRAINING} in {path}, none is left.")
    training, validation = apply_manifest(checked.rows, wanted)
    return checked.part(training, TRAINING), checked.part(validation, VALIDATION) if validation else None


def split_rows(training: CheckedSamples, validation: CheckedSamples | None) -> list[Row]:
    """The manifest of a run: which sample is for what."""
    return training.rows + (validation.rows if validation else [])
