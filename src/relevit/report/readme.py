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
from relevit.report.pictures import Case, colour_bar, png
from relevit.report.plots import COLOURS, INK, SOFT, accuracy_plot, marker, series
from relevit.report.results import Results
from relevit.report.words import readable


def render_readme_picture(
    path: str | Path,
    results: Results,
    cases: Mapping[str, Sequence[Case]],
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
    figure = Figure(figsize=(14.0, 0.95 + 1.55 * max(len(chosen), 3)), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    height = figure.get_size_inches()[1]
    tile, gap, top = 1.4, 0.15, 0.62  # inches

    def place(x: float, y: float, wide: float, tall: float) -> Axes:
        """Axes at inches from the left and from the top."""
        return figure.add_axes((x / 14.0, 1.0 - (y + tall) / height, wide / 14.0, tall / height))

    def write(x: float, y: float, text: str, **style) -> None:
        figure.text(
            x / 14.0,
            1.0 - y / height,
            text,
            **{"color": INK, "fontsize": 12, "va": "center", "parse_math": False, **style},
        )

    for row, (kind, case) in enumerate(chosen):
        y = top + row * (tile + gap)
        tiles = dict(case.tiles(size=144))
        for column, title in enumerate(("image", "map before", "map after")):
            x = 0.3 + column * (tile + gap)
            axes = place(x, y, tile, tile)
            axes.imshow(tiles[title], interpolation="nearest")
            axes.set_axis_off()
            if row == 0:
                write(x + tile / 2, top - 0.2, title, ha="center", color=SOFT)
        x = 0.3 + 3 * (tile + gap) + 0.05
        write(x, y + 0.28, kind, color=SOFT, fontsize=11)
        write(x, y + 0.55, f"true: {case.label}", fontsize=12)
        for line, prediction, confidence in (
            (0.85, case.prediction_before, case.confidence_before),
            (1.12, case.prediction_after, case.confidence_after),
        ):
            right = prediction == case.label
            word = "before" if line < 1 else "after"
            write(
                x,
                y + line,
                f"{word}: {prediction} ({confidence:.0%}) {'✓' if right else '✗'}",
                fontsize=12,
                color=COLOURS[0] if right else COLOURS[2],
                weight="bold" if word == "after" else "normal",
            )
    if chosen:
        bar = place(0.3 + tile + gap, top + len(chosen) * (tile + gap) - 0.04, 2 * tile + gap, 0.09)
        bar.imshow(colour_bar(256), aspect="auto")
        bar.set_axis_off()
        write(
            0.3 + tile + gap - 0.08,
            top + len(chosen) * (tile + gap),
            "relevance 0",
            ha="right",
            color=SOFT,
            fontsize=10,
        )
        write(0.3 + 3 * tile + 2 * gap + 0.08, top + len(chosen) * (tile + gap), "1", color=SOFT, fontsize=10)
    axes = place(8.0, top + 0.1, 5.7, height - top - 0.8)
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
    canvas.draw()
    picture = png(np.asarray(canvas.buffer_rgba())[..., :3])
    atomic_write(path, picture)
    return path


def _in_turn(cases: Mapping[str, Sequence[Case]], rows: int) -> list[tuple[str, Case]]:
    """The first of each kind, then the second of each, ..., `rows` in all, sorted by kind again."""
    kinds = list(cases)
    longest = max((len(cases[kind]) for kind in kinds), default=0)
    turns = [(kind, cases[kind][turn]) for turn in range(longest) for kind in kinds if turn < len(cases[kind])]
    return sorted(turns[:rows], key=lambda turn: kinds.index(turn[0]))
