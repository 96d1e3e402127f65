"""Results that are one number an image and figure: their means, and what every result says of images and classes in JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from relevit.evaluation.items import LeftOut
from relevit.statistics.weighted import plain, weighted_mean


@dataclass(frozen=True)
class PerImage:
    """Values of each image; a figure is the mean over the images where it is defined (not NaN).

    Attributes:
        names, groups, objects: of each image its name, its class's name (may be empty), and what it shows.
        values: figure -> its value for each image.
        left_out: images that do not count, and why.
        bounds: between which values a figure lies, where that is known: an interval then never has no width.
    """

    names: Sequence[str]
    groups: Sequence[str]
    objects: Sequence[str]
    values: Mapping[str, Float[np.ndarray, " images"]]
    left_out: Sequence[LeftOut] = ()
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def figures(self, weights: Float[np.ndarray, "draws images"]) -> dict[str, Float[np.ndarray, " draws"]]:
        """The mean of every value over the images, each as often as `weights` says."""
        return {name: weighted_mean(weights, values) for name, values in self.values.items()}

    def only(self, chosen: Int[np.ndarray, " some"]) -> PerImage:
        """The same for some of the images, by number."""
        names, groups, objects = columns(chosen, self.names, self.groups, self.objects)
        values = {name: each[chosen] for name, each in self.values.items()}
        return PerImage(names, groups, objects, values, bounds=self.bounds)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield from plain(self).items()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the figures, by class, and the values of every image; null where one is undefined."""
        return summary(self, self.values)


def summary(result: Any, per_image: Mapping[str, Any]) -> dict[str, Any]:
    """A result with columns `per_image`, its figures and those of each class (by name, sorted), ready for JSON."""
    groups = np.asarray(result.groups, dtype=str)
    names = [str(name) for name in np.unique(groups) if name]
    parts = {name: result.only(np.flatnonzero(groups == name)) for name in names}
    return {
        "images": len(result.names),
        "figures": numbers(dict(result)),
        "classes": {name: {"images": len(part.names), "figures": numbers(dict(part))} for name, part in parts.items()},
        "per_image": {"name": list(result.names), "class": list(result.groups), **numbers(per_image)},
        "left_out": [each._asdict() for each in result.left_out],
    }


def columns(chosen: np.ndarray, *each: Sequence[str]) -> tuple[list[str], ...]:
    """The chosen entries of several columns."""
    return tuple([column[number] for number in chosen] for column in each)


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and arrays of numbers for JSON, rounded to six digits after the point; NaN, which JSON lacks, is null."""
    return {name: [_number(v) for v in value] if np.ndim(value) else _number(value) for name, value in values.items()}


def _number(value: Any) -> float | int | None:
    if isinstance(value, int | np.integer):
        return int(value)
    return round(float(value), 6) if math.isfinite(value) else None
