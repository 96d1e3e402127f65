"""The curve of weight interpolation, as a picture and as a page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relevit.files import atomic_write
from relevit.report.page import refuse_existing, render
from relevit.report.plots import BAND, COLOURS, INK, LINE, SOFT, calm, inline_svg
from relevit.report.table import Cell, Row, Table
from relevit.report.words import number


def render_interpolation(
    folder: str | Path,
    content: Mapping[str, Any],
    summary: Sequence[str],
    setup: Mapping[str, str],
    notes: Sequence[str],
) -> Path:
    """Write curve.png and report.html into `folder`, and return the page's path.

    content: as `Curve.to_dict` gives it. summary, notes: sentences. setup: what was run, by name. Raises UserError if the
    page is there already, or cannot be written.
    """
    path = Path(folder) / "report.html"
    refuse_existing(path)
    buffer = io.BytesIO()
    _figure(content).savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    words = "Mean accuracy on the shifted sets against that in distribution, one point a model; the figures are in the table."
    atomic_write(Path(folder) / "curve.png", buffer.getvalue())
    return render(
        "interpolation.html",
        path,
        title="Between the original and the fine-tuned model",
        content=content,
        summary=summary,
        setup=setup,
        notes=notes,
        table=curve_table(content).html(),
        plot=inline_svg(_figure(content), "curve", words),
    )


def curve_table(content: Mapping[str, Any]) -> Table:
    """A row a model: its weight, the means over sets, and every set."""
    points: Sequence[Mapping[str, Any]] = content["points"]
    sets = [*points[0]["in_distribution"], *points[0]["shifted"]]
    rows: list[Row] = []
    chosen = []
    for place, point in enumerate(points):
        alpha = str(point["alpha"])
        if point["alpha"] == content["chosen_alpha"]:
            alpha, chosen = f"{alpha} (chosen)", [place]
        elif not point["within_budget"]:
            alpha = f"{alpha} (beyond the budget)"
        figures = [*point["in_distribution"].values(), *point["shifted"].values()]
        means = [number(point["in_distribution_mean"]), number(point["shifted_mean"])]
        rows.append([alpha, *means, *map(_accuracy, figures)])
    columns = ["\u03b1", "mean in distribution", "mean shifted", *sets]
    return Table("Table of accuracies", columns, rows, marked=chosen, mark="chosen")


def _accuracy(figure: Mapping[str, Any]) -> Cell:
    low, high = map(number, figure["r1_interval"])
    return Cell(number(figure["r1"]), below=[f"{low} to {high}"])


def _figure(content: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(6.2, 4.2), layout="constrained")
    curve_plot(figure.add_subplot(), content)
    return figure


def curve_plot(axes: Axes, content: Mapping[str, Any], *, size: float = 10.0) -> None:
    """In distribution (right) against shifted (up): the line of models, the chosen one ringed, what the budget allows shaded."""
    points: Sequence[Mapping[str, Any]] = content["points"]
    x = [point["in_distribution_mean"] for point in points]
    y = [point["shifted_mean"] for point in points]
    axes.plot(x, y, color=COLOURS[0], linewidth=1.4, marker="o", markersize=4.5, markeredgewidth=0)
    chosen = next(i for i, point in enumerate(points) if point["alpha"] == content["chosen_alpha"])
    axes.plot(
        x[chosen],
        y[chosen],
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=1.4,
    )
    axes.margins(0.14)
    left, right = axes.get_xlim()
    least = x[0] - content["budget"]
    if least < right:
        axes.axvspan(max(least, left), right, color=BAND, linewidth=0, zorder=0)
    axes.set_xlim(left, right)
    for i in sorted({0, chosen, len(points) - 1}):
        axes.annotate(
            f"{points[i]['alpha']:g}", (x[i], y[i]), (7, 6), textcoords="offset points", color=SOFT, fontsize=size
        )
    axes.grid(color=LINE, linewidth=0.6)
    calm(axes, size)
    axes.set_xlabel("R@1 in distribution, mean, %", color=SOFT, fontsize=size)
    axes.set_ylabel("R@1 on the shifted sets, mean, %", color=SOFT, fontsize=size)
