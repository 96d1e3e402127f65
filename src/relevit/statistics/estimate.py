"""The one form of a measured figure: a value with its 95% interval, and how many images, objects or seeds it rests on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

LEVEL = 0.95  # of every interval


@dataclass(frozen=True)
class Estimate:
    """A mean, a share or a difference, with its 95% interval.

    Attributes:
        value: in the units of what was averaged: hits as 0 and 1 give a share, percent give percent. NaN of nothing.
        low, high: the ends of the interval; both are `value` where no interval is known, as of a single seed.
        count: how many there are that count as independent.
        over: what these are: "images", "objects" or "seeds".

    Raises:
        ValueError: the ends are the wrong way round.
    """

    value: float
    low: float
    high: float
    count: int
    over: str

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"an Estimate's low end {self.low} is above its high end {self.high}")

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the interval."""
        return self.low, self.high

    @property
    def settled(self) -> bool:
        """Whether the interval leaves no doubt about the sign."""
        return self.low > 0 or self.high < 0

    @property
    def percent(self) -> Estimate:
        """A share as percent; a difference of shares as percentage points."""
        return replace(self, value=100 * self.value, low=100 * self.low, high=100 * self.high)

    def less(self, constant: float) -> Estimate:
        """The same minus a number that is not uncertain."""
        return replace(self, value=self.value - constant, low=self.low - constant, high=self.high - constant)

    def turned(self) -> Estimate:
        """The same with the other sign."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)

    def to_dict(self, name: str = "points") -> dict[str, Any]:
        """Ready for JSON: the value by this name, the ends of the interval, and the count by what it counts."""
        return {
            name: round(self.value, 4),
            "interval": [round(self.low, 4), round(self.high, 4)],
            self.over: self.count,
        }
