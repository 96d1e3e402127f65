"""Accuracy along the line between two models: in distribution against shifted, and the point that a budget allows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from relevit.errors import UserError
from relevit.evaluation.accuracy.recall import Accuracy
from relevit.evaluation.batches import Transform
from relevit.evaluation.run import evaluate
from relevit.files import atomic_write
from relevit.models.interpolation import check_mixable, interpolate


@dataclass(frozen=True)
class Point:
    """One model on the line: its alpha, its accuracy on each set, and the means of R@1 over the sets of either kind, percent."""

    alpha: float
    in_distribution: dict[str, Accuracy]
    shifted: dict[str, Accuracy]

    @property
    def in_distribution_mean(self) -> float:
        return float(np.mean([one.r1 for one in self.in_distribution.values()]))

    @property
    def shifted_mean(self) -> float:
        return float(np.mean([one.r1 for one in self.shifted.values()]))


@dataclass(frozen=True)
class Curve:
    """The points from the original (alpha 0) on, the budget in points of accuracy, and which point was chosen."""

    points: list[Point]
    budget: float
    chosen: int

    @property
    def best(self) -> Point:
        return self.points[self.chosen]

    def within(self, point: Point) -> bool:
        """Whether the point loses no more in distribution than the budget allows."""
        return _within(point.in_distribution_mean, self.points[0].in_distribution_mean, self.budget)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each point and set, ready for CSV; accuracies in percent with their 95% intervals."""
        return [
            {
                "alpha": point.alpha,
                "kind": kind,
                "set": name,
                "images": len(one),
                "r1": round(one.r1, 4),
                "r1_low": round(one.r1_interval.low, 4),
                "r1_high": round(one.r1_interval.high, 4),
                "r5": round(one.r5, 4),
                "chosen": int(point is self.best),
            }
            for point in self.points
            for kind, sets in (("in distribution", point.in_distribution), ("shifted", point.shifted))
            for name, one in sets.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single images, ready for JSON."""
        return {
            "budget": self.budget,
            "chosen_alpha": self.best.alpha,
            "points": [
                {
                    "alpha": point.alpha,
                    "in_distribution_mean": round(point.in_distribution_mean, 4),
                    "shifted_mean": round(point.shifted_mean, 4),
                    "within_budget": self.within(point),
                    "in_distribution": {k: one.to_dict(classes=False) for k, one in point.in_distribution.items()},
                    "shifted": {k: one.to_dict(classes=False) for k, one in point.shifted.items()},
                }
                for point in self.points
            ],
        }

    def save(self, folder: str | Path, about: Mapping[str, Any]) -> None:
        """Writes curve.csv and, last, interpolation.json, in which `about` stands too."""
        text = io.StringIO()
        rows = self.rows()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        atomic_write(Path(folder) / "curve.csv", text.getvalue())
        content = {**about, **self.to_dict()}
        atomic_write(Path(folder) / "interpolation.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def interpolation_curve(
    original: nn.Module,
    tuned: nn.Module,
    view: Transform,
    in_distribution: Mapping[str, Any],
    shifted: Mapping[str, Any],
    *,
    alphas: Sequence[float],
    budget: float,
    **options: Any,
) -> Curve:
    """Measures the models at `alphas` between the two, in one pass over the images, and chooses one.

    Args:
        original, tuned: models of one architecture (see `relevit.models.interpolation`).
        view: the transform of both.
        in_distribution, shifted: benchmarks by name, as `relevit.evaluate` takes them; no name in both.
        alphas: between 0 and 1, in any order; 0, the original, is measured in any case.
        budget: points of R@1 in distribution (mean over its sets) that may be lost against the original.
        options: further arguments of `relevit.evaluate`, such as protocol, out, batch_size, device.

    The choice is the point with the highest mean R@1 over the shifted sets among those within the budget, on a tie the one
    nearest to the original. It is a choice made on these images: measure it on others.
    Raises UserError as `relevit.evaluate` and `relevit.models.interpolation.interpolate` do, and for the arguments above.
    """
    chosen = check_line(alphas, budget)
    check_apart(in_distribution, shifted)
    check_mixable(original, tuned)
    mixtures = {label(alpha): (interpolate(original, tuned, alpha), view) for alpha in chosen}
    report = evaluate(mixtures, {**in_distribution, **shifted}, **options)
    given = [*in_distribution, *shifted]
    near = {name: _given(name, given) in in_distribution for name in report.accuracies}
    points = [
        Point(
            alpha,
            {name: models[label(alpha)] for name, models in report.accuracies.items() if near[name]},
            {name: models[label(alpha)] for name, models in report.accuracies.items() if not near[name]},
        )
        for alpha in chosen
    ]
    return Curve(points, budget, choose(points, budget))


def check_apart(in_distribution: Mapping[str, Any], shifted: Mapping[str, Any]) -> None:
    """Raises UserError for no sets of either kind, and for one in both."""
    twice = sorted(in_distribution.keys() & shifted.keys())
    if not in_distribution or not shifted:
        raise UserError("give at least one set in distribution and one that is shifted")
    if twice:
        raise UserError(
            f"{twice[0]} is among both the sets in distribution and the shifted ones: give it as one of them"
        )


def choose(points: Sequence[Point], budget: float) -> int:
    """Which point has the highest shifted mean among those within the budget of the first, the original; the earlier on a tie."""
    start = points[0].in_distribution_mean
    allowed = [i for i, point in enumerate(points) if _within(point.in_distribution_mean, start, budget)]
    return max(allowed, key=lambda i: (points[i].shifted_mean, -i))


def _within(mean: float, start: float, budget: float) -> bool:
    return mean >= start - budget - 1e-9  # percent; rounding of means


def check_line(alphas: Sequence[float], budget: float) -> list[float]:
    """The alphas in order, 0 among them. Raises UserError for one outside of [0, 1], given twice, or a negative budget."""
    outside = [alpha for alpha in alphas if not 0.0 <= alpha <= 1.0]
    if outside or not alphas:
        raise UserError(
            f"alphas must be between 0 (the original) and 1 (the fine-tuned model), not {outside or 'none'}"
        )
    if len(set(alphas)) < len(alphas):
        raise UserError(f"alphas must differ from each other: {', '.join(f'{alpha:g}' for alpha in alphas)}")
    if not budget >= 0:
        raise UserError(f"the budget is a loss in points, 0 or more, not {budget}")
    return sorted({0.0, *(float(alpha) for alpha in alphas)})


def label(alpha: float) -> str:
    """What the model at alpha is called in a report."""
    return f"alpha {alpha!r}"


def _given(name: str, given: Sequence[str]) -> str:
    """Under which of the names given the report has a set: its own, or that of a folder which holds several, NAME/SET."""
    return max((one for one in given if name == one or name.startswith(f"{one.rstrip('/')}/")), key=len)
