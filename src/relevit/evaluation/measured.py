"""What a measurement found of one model on one set: figures, their parts by class and image, and what does not count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from relevit.evaluation.rows import Fault, array
from relevit.statistics.weighted import plain, weighted_mean

Combine = Callable[[pa.Table, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Measured:
    """The figures of the images that count; a figure is the mean of its values over the images where it is defined (not NaN).

    Attributes:
        rows: of the images that count.
        values: figure -> its value for each image.
        bounds: between which values a figure lies, where that is known: an interval then never has no width.
        settings: what was chosen, ready for JSON.
        shown: what stands of each image in the JSON, if it is not `values`.
        details: what else the JSON tells.
        combine: the figures of the set in which each image appears as often as weights say, where they are no means.
        left_out: images that do not count, and why.
        train_left_out: the same of the images that features were trained on.
    """

    rows: pa.Table
    values: Mapping[str, Float[np.ndarray, " images"]]
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    combine: Combine | None = None
    left_out: Sequence[Fault] = ()
    train_left_out: Sequence[Fault] | None = None

    @cached_property
    def names(self) -> list[str]:
        """The images' names."""
        return self.rows["image"].to_pylist()

    @cached_property
    def groups(self) -> list[str]:
        """The name of each image's class; may be empty."""
        return self.rows["class"].to_pylist()

    @cached_property
    def objects(self) -> list[str]:
        """What each image shows: itself, where nothing is known."""
        return [
            shown if shown is not None else name
            for shown, name in zip(self.rows["object"].to_pylist(), self.names, strict=True)
        ]

    def column(self, name: str) -> np.ndarray:
        """A column of the rows, (images,) or (images, numbers)."""
        return array(self.rows, name)

    def figures(self, weights: Float[np.ndarray, "draws images"]) -> dict[str, Float[np.ndarray, " draws"]]:
        """Every figure of the set in which each image appears as often as `weights` says."""
        if self.combine is not None:
            return self.combine(self.rows, weights)
        return {name: weighted_mean(weights, values) for name, values in self.values.items()}

    def only(self, chosen: Int[np.ndarray, " some"]) -> Measured:
        """The same for some of the images, by number; without what is known of the whole set alone."""
        values = {name: each[chosen] for name, each in self.values.items()}
        return replace(self, rows=self.rows.take(chosen), values=values, shown={}, details={}, left_out=())

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield from plain(self).items()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the figures, by class, and the values of every image; null where one is undefined."""
        groups = np.asarray(self.groups, dtype=str)
        parts = {str(name): self.only(np.flatnonzero(groups == name)) for name in np.unique(groups) if name}
        trained = {} if self.train_left_out is None else {"train_left_out": _told(self.train_left_out)}
        return {
            **({"settings": dict(self.settings)} if self.settings else {}),
            "images": len(self.names),
            "figures": numbers(dict(self)),
            "classes": {
                name: {"images": len(part.names), "figures": numbers(dict(part))} for name, part in parts.items()
            },
            "per_image": {"name": self.names, "class": self.groups, **numbers(self.shown or self.values)},
            "left_out": _told(self.left_out),
            **trained,
            **self.details,
        }


def _told(faults: Sequence[Fault]) -> list[dict[str, str]]:
    return [{"name": fault.name, "reason": fault.reason} for fault in faults]


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and arrays of numbers for JSON, rounded to six digits after the point; NaN, which JSON lacks, is null."""
    return {name: [_number(v) for v in value] if np.ndim(value) else _number(value) for name, value in values.items()}


def _number(value: Any) -> float | int | str | None:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | np.integer):
        return int(value)
    return round(float(value), 6) if math.isfinite(value) else None
