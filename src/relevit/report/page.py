"""The report: one HTML file that holds everything it shows (style, plots, pictures) and asks nothing of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from relevit.errors import UserError
from relevit.files import atomic_write
from relevit.report.pictures import Case, colour_bar, data_uri
from relevit.report.plots import COLOURS, MARKERS, accuracy_svg, map_and_behaviour_svg, series
from relevit.report.results import Results, ends_text, readable, signed
from relevit.report.templating import template_environment

__all__ = ["RULES", "Case", "Results", "refuse_existing", "render_page"]

# How the cases of each kind are chosen unless the caller says otherwise: what the page states above them.
RULES = {
    "corrected": "Wrong before, right after: the first ones in the order of the test set.",
    "unchanged": "The same prediction before and after: the first ones in the order of the test set.",
    "ruined": "Right before, wrong after: the first ones in the order of the test set.",
}
SHAPES = {  # matplotlib's markers, drawn in a box from -5 to 5 for the legend
    "o": "M0-4a4 4 0 1 0 .01 0z",
    "s": "M-3.5-3.5h7v7h-7z",
    "D": "M0-4.7 4.7 0 0 4.7-4.7 0z",
    "^": "M0-4 4.2 3.6h-8.4z",
    "v": "M0 4 4.2-3.6h-8.4z",
    "P": "M-1.5-4.2h3v2.7h2.7v3h-2.7v2.7h-3v-2.7h-2.7v-3h2.7z",
    "X": "M-4-2-2-4 0-2 2-4 4-2 2 0 4 2 2 4 0 2-2 4-4 2-2 0z",
}


def render_page(
    path: str | Path,
    title: str,
    summary: Sequence[str],
    setup: Mapping[str, str],
    results: Results,
    cases: Mapping[str, Sequence[Case]],
    notes: Sequence[str],
    *,
    rules: Mapping[str, str] | None = None,
    definitions: Mapping[str, str] | None = None,
    behaviour: str = "background_shuffled",
    compared: str | None = None,
) -> Path:
    """Write the report and return its path. The file appears whole or not at all; an existing one is refused.

    summary: the verdict, in plain sentences; the first is set larger.
    setup: what was run, by name; values of several lines and those named "command" are set as code.
    cases: "corrected", "unchanged", "ruined" (others are taken too) -> images to show; may be empty.
    notes: definitions, seeds, whatever a reader needs to judge or repeat it; one paragraph each.
    rules: kind of case -> how they were chosen, where it is not as in `RULES`.
    definitions: model or test set -> what it is, for the lists under the table.
    behaviour: the test set to plot against the share of relevance; no such plot if it or the shares are not there.
    compared: the model that "after" in the cases means; named above them.
    Raises UserError if the file is there already, or cannot be written.
    """
    path = Path(path)
    refuse_existing(path)
    with_map = results.original in results.foreground_share and behaviour in results.sets
    environment = template_environment(
        readable=readable, signed=signed, ends_text=ends_text, data_uri=data_uri, percent="{:.0%}".format
    )
    html = environment.get_template("page.html").render(
        title=title,
        summary=summary,
        setup=setup,
        results=results,
        cases=cases,
        notes=notes,
        rules=RULES | dict(rules or {}),
        definitions=definitions or {},
        behaviour=behaviour,
        compared=compared,
        glyphs={model: (i % len(COLOURS), SHAPES[MARKERS[i % len(MARKERS)]]) for model, i in series(results).items()},
        with_intervals=any(ends_text(v) for row in results.values.values() for v in row.values()),
        accuracy_svg=Markup(accuracy_svg(results)),
        behaviour_svg=Markup(map_and_behaviour_svg(results, behaviour)) if with_map else None,
        colours=COLOURS,
        colour_bar=colour_bar(),
    )
    atomic_write(path, html)
    return path


def refuse_existing(path: str | Path) -> None:
    """Raise UserError if something is there already."""
    if Path(path).exists():
        raise UserError(f"{path} already exists and is not overwritten: move it away or give another name.")
