"""The page of per-class effects: how the changes are distributed, the classes helped and harmed most, images before and
after (paper, appendix K, Figures 1 to 3 and appendix G)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from relevit.files import atomic_write
from relevit.report.page import refuse_existing
from relevit.report.panels import RULES, Panel, environment
from relevit.report.plots import COLOURS, INK, LINE, SOFT, _calm, _inline_svg

BEFORE, AFTER, CHANCE = COLOURS[2], COLOURS[0], INK
_BINS = 31


def render_effects(
    path: str | Path,
    title: str,
    summary: Sequence[str],
    content: Mapping[str, Any],
    chance: np.ndarray,
    kinds: Mapping[str, Sequence[Panel]],
    classes: Mapping[str, Mapping[str, Sequence[Panel]]],
    setup: Mapping[str, str],
    notes: Sequence[str],
) -> Path:
    """Write the page and return its path; its figures are those of `content`, the effects as JSON.

    summary: sentences. chance: changes of classes by chance, for the plot. kinds: corrected, unchanged, ruined -> panels.
    classes: "helped" and "harmed" -> class -> panels. setup: what was run, by name. Raises UserError if the file is there
    already, or cannot be written.
    """
    path = Path(path)
    refuse_existing(path)
    effects: Mapping[str, Any] = content["effects"]
    changes = np.array([each["change"]["points"] for each in effects["classes"]])
    html = (
        environment()
        .get_template("effects.html")
        .render(
            title=title,
            summary=summary,
            content=content,
            effects=effects,
            kinds=kinds,
            classes=classes,
            rules=RULES,
            setup=setup,
            notes=notes,
            plot=Markup(changes_svg(changes, chance)),
        )
    )
    atomic_write(path, html)
    return path


def changes_svg(changes: np.ndarray, chance: np.ndarray) -> str:
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
    _calm(axes, 10.0)
    axes.set_xlabel("change in accuracy, points", color=SOFT, fontsize=10)
    axes.set_ylabel("classes", color=SOFT, fontsize=10)
    words = "Histogram of the classes' changes in accuracy; the figures are in the table."
    return _inline_svg(figure, "changes", words)
