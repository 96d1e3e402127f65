"""Samples for training: image and mask pairs, from folders or any data set, checked and split reproducibly."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Subset

from relevit.data.checks import Progress, has_object, in_parallel
from relevit.data.classes import class_index
from relevit.data.folder import FolderSamples
from relevit.data.manifest import Row, Split, apply_manifest, read_manifest, split_samples, write_manifest
from relevit.data.sample import Sample, as_sample
from relevit.errors import Fault, FaultsError, UserError

__all__ = [
    "Fault",
    "FaultsError",
    "FolderSamples",
    "Row",
    "Sample",
    "Split",
    "apply_manifest",
    "as_sample",
    "check_samples",
    "class_index",
    "read_manifest",
    "split_samples",
    "write_manifest",
]


def check_samples(
    samples: Any,
    num_classes: int | None = None,
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> list[Fault]:
    """Read every sample of a data set, or of a part of one, in full; the list of all faults, empty if there are none.

    `num_classes`: labels at or above it are faults, too. A FolderSamples that was checked when it was made needs this
    no more; a Subset of an unchecked one is checked here, and nothing but its own samples. Never raises for a bad
    sample.
    """

    def check(index: int) -> Fault | None:
        base: Any = samples
        inner = index
        while isinstance(base, Subset):
            inner = base.indices[inner]
            base = base.dataset
        if isinstance(base, FolderSamples):
            label, name = base.manifest[inner].label, base.manifest[inner].name
            fault = base.check_item(inner)
            if fault is not None:
                return fault
        else:
            try:
                sample = as_sample(base[inner], inner)
            except UserError as error:
                return Fault("bad sample", f"sample {inner}", str(error).removeprefix(f"sample {inner}: "))
            label, name = sample.label, sample.name
            if not has_object(sample.mask):
                return Fault("empty mask", name)
        if num_classes is not None and label >= num_classes:
            return Fault("unknown class", name, f"label {label}, the model's classes are 0 to {num_classes - 1}")
        return None

    return [fault for fault in in_parallel(check, range(len(samples)), workers, progress) if fault is not None]
