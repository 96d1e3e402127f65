"""Samples in memory as an `ImageSet` that knows right and competing classes."""

from __future__ import annotations

from collections.abc import Sequence

from relevit.data.sample import Sample
from relevit.data.sets import ImageSet


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
