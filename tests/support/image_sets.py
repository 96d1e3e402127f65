"""Sets of images for tests: what a name or path stands for, and samples in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relevit.data.open import AnySet, sets
from relevit.data.sample import Sample
from relevit.data.sets import ImageSet


def opened(given: Any, protocol: str = "standard") -> dict[str, AnySet]:
    """The sets that `given` stands for, all of them opened."""
    return {name: opener() for name, opener in sets(given, protocol=protocol).items()}


def image_set(
    samples: Sequence[Sample],
    right: Sequence[tuple[int, ...]] | None = None,
    competing: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
) -> ImageSet:
    """Images called "key 0", "key 1", ...; right: the classes that are right for each, whatever the model."""
    names = [f"key {number}" for number in range(len(samples))]
    return ImageSet(
        "in memory",
        lambda index: samples[index]._replace(name=names[index]),
        names,
        groups,
        right=None if right is None else lambda model, class_map: right,
        kinds=range(len(samples)),
        competing=None if competing is None else lambda model: competing,
    )
