"""Parts of the page of per-class effects (paper, appendix K): the table of classes, and how their changes are distributed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from relevit.report.plots import COLOURS, INK, LINE, SOFT, calm, inline_svg
from relevit.report.table import Cell, Kind, Table
from relevit.report.words import number, signed

BEFORE, AFTER, CHANCE = COLOURS[2], COLOURS[0], INK
_BINS = 31


def class_table(content: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Table:
    """A row for each of some classes; a change is in colour where it is settled over all classes."""
    p = "of McNemar's exact test, adjusted over all classes (Benjamini and Hochberg)"
    columns = ["class", "images", content["before"], content["after"], "change", "corrected", "ruined"]
    return Table(
        "Table of classes", [*columns, Cell("adjusted p", title=p)], [_row(row) for row in rows], classes="few"
    )


def _row(effect: Mapping[str, Any]) -> list[Cell | str]:
    change = effect["change"]
    low, high = map(number, change["interval"])
    kind: Kind = "open"
    if effect["settled"]:
        kind = "better" if change["points"] > 0 else "worse"
    return [
        effect["class"],
        str(effect["images"]),
        number(effect["before"]),
        number(effect["after"]),
        Cell(change=signed(change["points"]), kind=kind, below=[f"{low} to {high}"]),
        str(effect["corrected"]),
        str(effect["ruined"]),
        number(effect["p_adjusted"], 3),
    ]


def changes_svg(changes: Sequence[float], chance: np.ndarray) -> Markup:
    """Histogram of the classes' changes in points: harmed and helped ones in two colours, and as a line how many classes there
    would be in each bar by chance alone."""
    reach = max(1.0, float(np.abs(changes).max()), float(np.quantile(np.abs(chance), 0.999)) if chance.size else 0.0)
    edges = np.linspace(-reach, reach, _BINS + 1)  # odd: the middle bar is about 0
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    axes = figure.add_subplot()
    middle = (edges[:-1] + edges[1:]) / 2
    width = edges[1] - edges[0]
    for part, colour in (
        (middle < -width / 2, BEFORE),
        (middle > width / 2, AFTER),
        (np.abs(middle) <= width / 2, SOFT),
    ):
        counts = np.histogram(changes, edges)[0]
        axes.bar(middle[part], counts[part], width * 0.92, color=colour, linewidth=0)
    if chance.size:
        expected = np.histogram(chance, edges)[0] / len(chance)
        axes.stairs(expected, edges, color=CHANCE, linewidth=1.2)
    axes.axvline(0, color=LINE, linewidth=0.8, zorder=0)
    calm(axes, 10.0)
    axes.set_xlabel("change in accuracy, points", color=SOFT, fontsize=10)
    axes.set_ylabel("classes", color=SOFT, fontsize=10)
    words = "Histogram of the classes' changes in accuracy; the figures are in the table."
    return inline_svg(figure, "changes", words)
