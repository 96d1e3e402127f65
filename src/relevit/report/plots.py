"""Plots of the results: accuracy on every test set, and maps beside behaviour. No pyplot, hence no global state."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from relevit.report.results import Results
from relevit.report.words import readable

INK, SOFT, LINE, BAND = "#1c2733", "#5a6775", "#d5dbe1", "#e7ebef"
# Told apart also by people who do not see red or green, and by the markers alone.
COLOURS = ("#0b6fb8", "#8a5a9e", "#c8590a", "#0a8f6c", "#b03a6b", "#6f7a12", "#3d53c4")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
SHAPES = {  # matplotlib's markers, drawn in a box from -5 to 5 for legends and tables
    "o": "M0-4a4 4 0 1 0 .01 0z",
    "s": "M-3.5-3.5h7v7h-7z",
    "D": "M0-4.7 4.7 0 0 4.7-4.7 0z",
    "^": "M0-4 4.2 3.6h-8.4z",
    "v": "M0 4 4.2-3.6h-8.4z",
    "P": "M-1.5-4.2h3v2.7h2.7v3h-2.7v2.7h-3v-2.7h-2.7v-3h2.7z",
    "X": "M-4-2-2-4 0-2 2-4 4-2 2 0 4 2 2 4 0 2-2 4-4 2-2 0z",
}
# What the page's style sheet knows these colours as, for its light and its dark side.
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", BAND: "band"} | {c: f"series-{i}" for i, c in enumerate(COLOURS)}


def series(results: Results) -> dict[str, int]:
    """Model -> which colour and marker are its own; the original has none (it is the line drawn in ink)."""
    return {m: i for i, m in enumerate(m for m in results.models if m != results.original)}


def glyph(results: Results, model: str) -> Markup:
    """The model's marker in its colour, as a small SVG; a line in ink for the original."""
    index = series(results).get(model)
    path = "M-1-6h2v12h-2z" if index is None else SHAPES[MARKERS[index % len(MARKERS)]]
    fill = "ink" if index is None else f"series-{index % len(COLOURS)}"
    return Markup(
        f'<svg class="glyph" viewBox="-6 -6 12 12" aria-hidden="true"><path d="{path}" fill="var(--{fill})"/></svg>'
    )


def accuracy_plot(axes: Axes, results: Results, *, size: float = 10.0) -> None:
    """A band per test set: the original as a line with its interval shaded, every other model as a point."""
    others = series(results)
    spread = 0.17 * (len(others) - 1) / 2
    height = 2 * spread + 0.36  # of the models' part of a band
    pitch = height + 0.52  # with the set's name above
    ends = [x for m in results.models for s in results.sets for x in results.values[m][s].ends]
    left, right = min(ends), max(ends)
    margin = 0.04 * max(right - left, 5.0)
    axes.set_xlim(max(left - margin, -1.0), min(right + margin, 101.0))
    for row, name in enumerate(results.sets):
        centre = row * pitch
        top, bottom = centre - height / 2, centre + height / 2
        if row:
            axes.axhline(top - 0.42, color=LINE, linewidth=0.6)
        original = results.values[results.original][name]
        low, high = original.ends
        axes.fill_betweenx([top, bottom], low, high, color=BAND, linewidth=0)
        axes.vlines(original.value, top, bottom, color=INK, linewidth=1.4)
        axes.annotate(
            readable(name),
            (0, top),
            (0, 2.5),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            color=INK,
            fontsize=size,
            va="bottom",
            parse_math=False,
        )
        for model, index in others.items():
            value = results.values[model][name]
            y = centre - spread + 0.17 * index
            axes.hlines(y, *value.ends, color=COLOURS[index % len(COLOURS)], linewidth=1.3)
            axes.plot(value.value, y, **marker(index), markersize=5.2, linestyle="none")
    axes.set_ylim((len(results.sets) - 1) * pitch + height / 2 + 0.1, -height / 2 - 0.42)
    axes.set_yticks([])
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    calm(axes, size)
    axes.set_xlabel("accuracy, %", color=SOFT, fontsize=size)


def map_and_behaviour_plot(axes: Axes, results: Results, behaviour: str, *, size: float = 10.0) -> None:
    """Share of the relevance on the foreground (right) against accuracy on the set `behaviour` (up), per model."""
    others = series(results)
    origin = (results.foreground_share[results.original].value, results.values[results.original][behaviour].value)
    for model in results.models:
        if model not in results.foreground_share:
            continue
        share, accuracy = results.foreground_share[model], results.values[model][behaviour]
        index = others.get(model)
        tint = INK if index is None else COLOURS[index % len(COLOURS)]
        if index is not None:
            axes.plot(
                [origin[0], share.value],
                [origin[1], accuracy.value],
                color=tint,
                linewidth=0.9,
                linestyle=(0, (1.5, 2.5)),
            )
        axes.hlines(accuracy.value, *share.ends, color=tint, linewidth=1.3)
        axes.vlines(share.value, *accuracy.ends, color=tint, linewidth=1.3)
        style = marker(index) if index is not None else {"marker": "|", "color": INK, "markeredgewidth": 1.8}
        axes.plot(share.value, accuracy.value, **style, markersize=6.5 if index is not None else 13, linestyle="none")
    axes.margins(0.12)
    axes.grid(color=LINE, linewidth=0.6)
    calm(axes, size)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.set_xlabel("share of relevance on the foreground, %", color=SOFT, fontsize=size)
    axes.set_ylabel(f"accuracy, {readable(behaviour)}, %", color=SOFT, fontsize=size, parse_math=False)


def marker(index: int) -> dict[str, Any]:
    """Style of the points of the model with this number in `series`."""
    return {"marker": MARKERS[index % len(MARKERS)], "color": COLOURS[index % len(COLOURS)], "markeredgewidth": 0}


def calm(axes: Axes, size: float) -> None:
    """Without a frame and ticks, numbers as short as can be."""
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=SOFT, labelsize=size)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def accuracy_svg(results: Results) -> Markup:
    """`accuracy_plot` as an SVG element to stand in the page (see `inline_svg`)."""
    band = 0.17 * (len(results.models) - 1) + 0.88
    figure = Figure(figsize=(5.0, 0.62 + 0.5 * band * len(results.sets)), layout="constrained")
    accuracy_plot(figure.add_subplot(), results)
    return inline_svg(figure, "accuracy", "Accuracy of every model on every test set; the figures are in the table.")


def map_and_behaviour_svg(results: Results, behaviour: str) -> Markup:
    """`map_and_behaviour_plot` as an SVG element to stand in the page."""
    figure = Figure(figsize=(5.0, 4.1), layout="constrained")
    map_and_behaviour_plot(figure.add_subplot(), results, behaviour)
    words = f"Share of relevance on the foreground against accuracy on {readable(behaviour)}, one point a model."
    return inline_svg(figure, "behaviour", words)


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an `<svg>` for HTML: text as text in the page's font, colours as the page's variables, no links.

    The names that matplotlib gives to markers and clip paths are prefixed, so that several figures share a page.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', head)
    assert box is not None  # matplotlib always writes one
    body = re.sub(r"font-family: [^;\"]+;?", "", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", body)
    body = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable}, {colour})")
    return Markup(f'<svg class="plot" role="img" aria-label="{escape(description)}" {box.group()}>{body.strip()}')
