"""The picture for a README: a few images with their maps before and after, and the plot of the accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from relevit.files import atomic_write
from relevit.report.page import refuse_existing
from relevit.report.panels import Panel
from relevit.report.pictures import colour_bar, png
from relevit.report.plots import COLOURS, INK, SOFT, accuracy_plot, marker, series
from relevit.report.results import Results
from relevit.report.words import readable

WIDTH, TILE, GAP, TOP, LEFT = 14.0, 1.4, 0.15, 0.62, 0.3  # inches


class _Sheet:
    """A figure on which things are placed by inches from the left and from the top."""

    def __init__(self, height: float) -> None:
        self.figure = Figure(figsize=(WIDTH, height), dpi=100, facecolor="white")
        self.canvas, self.height = FigureCanvasAgg(self.figure), height

    def place(self, x: float, y: float, wide: float, tall: float) -> Axes:
        """Axes of this size."""
        return self.figure.add_axes((x / WIDTH, 1.0 - (y + tall) / self.height, wide / WIDTH, tall / self.height))

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """A line of text."""
        style = {"color": INK, "fontsize": 12, "va": "center", "parse_math": False, **style}
        self.figure.text(x / WIDTH, 1.0 - y / self.height, text, **style)


def render_readme_picture(
    path: str | Path,
    results: Results,
    cases: Mapping[str, Sequence[Panel]],
    *,
    rows: int = 4,
    overwrite: bool = False,
) -> Path:
    """A PNG, 1400 pixels wide: on the left image and maps before and after, on the right the accuracies.

    The rows are the first of "corrected", of "unchanged" and of "ruined", then the second of each, and so on, so that
    the picture does not show successes alone. An existing file is refused (UserError) unless `overwrite`.
    """
    path = Path(path)
    if not overwrite:
        refuse_existing(path)
    chosen = _in_turn(cases, rows)
    sheet = _Sheet(0.95 + 1.55 * max(len(chosen), 3))
    for row, (kind, case) in enumerate(chosen):
        _draw_case(sheet, row, kind, case)
    if chosen:
        _draw_scale(sheet, TOP + len(chosen) * (TILE + GAP))
    _draw_accuracies(sheet, results)
    sheet.canvas.draw()
    picture = png(np.asarray(sheet.canvas.buffer_rgba())[..., :3])
    atomic_write(path, picture)
    return path


def _draw_case(sheet: _Sheet, row: int, kind: str, case: Panel) -> None:
    """An image, its maps before and after, and what the model says of it."""
    y, tiles = TOP + row * (TILE + GAP), dict(case.tiles)
    titles = [title for title in tiles if title != "mask"]
    for column, title in enumerate(titles):
        x = LEFT + column * (TILE + GAP)
        axes = sheet.place(x, y, TILE, TILE)
        axes.imshow(tiles[title], interpolation="hanning")  # tiles are larger: no line of an outline may be lost
        axes.set_axis_off()
        if row == 0:
            sheet.write(x + TILE / 2, TOP - 0.2, title, ha="center", color=SOFT)
    x = LEFT + 3 * (TILE + GAP) + 0.05
    sheet.write(x, y + 0.28, kind, color=SOFT, fontsize=11)
    sheet.write(x, y + 0.55, f"true: {case.label}", fontsize=12)
    for answer, below, weight in zip(case.answers, (0.85, 1.12), ("normal", "bold"), strict=True):
        text = f"{answer.who}: {answer.prediction} ({answer.confidence:.0%}) {'✓' if answer.right else '✗'}"
        sheet.write(x, y + below, text, fontsize=12, color=COLOURS[0 if answer.right else 2], weight=weight)


def _draw_scale(sheet: _Sheet, y: float) -> None:
    """The colours of relevance from 0 to 1, below the maps."""
    bar = sheet.place(LEFT + TILE + GAP, y - 0.04, 2 * TILE + GAP, 0.09)
    bar.imshow(colour_bar(256), aspect="auto")
    bar.set_axis_off()
    sheet.write(LEFT + TILE + GAP - 0.08, y, "relevance 0", ha="right", color=SOFT, fontsize=10)
    sheet.write(LEFT + 3 * TILE + 2 * GAP + 0.08, y, "1", color=SOFT, fontsize=10)


def _draw_accuracies(sheet: _Sheet, results: Results) -> None:
    """The plot of accuracies with its legend."""
    axes = sheet.place(8.0, TOP + 0.1, 5.7, sheet.height - TOP - 0.8)
    accuracy_plot(axes, results, size=12)
    tick: dict[str, Any] = {"marker": "|", "color": INK, "markersize": 13, "markeredgewidth": 1.8, "linestyle": "none"}
    handles = axes.plot([], [], **tick, label=readable(results.original))
    for model, index in series(results).items():
        handles += axes.plot([], [], **marker(index), linestyle="none", markersize=7, label=readable(model))
    legend = axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=3,
        frameon=False,
        fontsize=10.5,
        labelcolor=INK,
        handletextpad=0.2,
        columnspacing=1.0,
        borderaxespad=0.0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _in_turn(cases: Mapping[str, Sequence[Panel]], rows: int) -> list[tuple[str, Panel]]:
    """The first of each kind, then the second of each, ..., `rows` in all, sorted by kind again."""
    kinds = list(cases)
    longest = max((len(cases[kind]) for kind in kinds), default=0)
    turns = [(kind, cases[kind][turn]) for turn in range(longest) for kind in kinds if turn < len(cases[kind])]
    return sorted(turns[:rows], key=lambda turn: kinds.index(turn[0]))
