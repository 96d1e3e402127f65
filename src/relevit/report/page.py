"""Pages: HTML files that hold everything they show (style, plots, pictures) and ask nothing of a network.

Every page is a template that extends `base.html`; `render` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relevit.errors import UserError
from relevit.files import atomic_write
from relevit.report.panels import RULES, Panel
from relevit.report.plots import accuracy_svg, glyph, map_and_behaviour_svg
from relevit.report.results import Results, accuracy_table
from relevit.report.templating import template_environment
from relevit.report.words import ends_text


def render(template: str, path: str | Path, *, overwrite: bool = False, **content: Any) -> Path:
    """Write a page and return its path. The file appears whole or not at all.

    Args:
        template: a file of templates/ that extends base.html.
        path: the page's file; an existing one is refused unless `overwrite`.
        content: what the template shows; base.html needs `title`, `summary` (sentences, the first is set larger), `setup` (what was
            run, by name; "command" and values of several lines are set as code) and `notes`.

    Raises:
        UserError: the file is there already, or cannot be written.
    """
    path = Path(path)
    if not overwrite:
        refuse_existing(path)
    atomic_write(path, template_environment().get_template(template).render(content))
    return path


def refuse_existing(path: str | Path) -> None:
    """Raise UserError if something is there already."""
    if Path(path).exists():
        raise UserError(f"{path} already exists and is not overwritten: move it away or give another name.")


def render_page(
    path: str | Path,
    title: str,
    summary: Sequence[str],
    setup: Mapping[str, str],
    results: Results,
    cases: Mapping[str, Sequence[Panel]],
    notes: Sequence[str],
    *,
    rules: Mapping[str, str] | None = None,
    definitions: Mapping[str, str] | None = None,
    behaviour: str = "background_shuffled",
    compared: str | None = None,
) -> Path:
    """Write the report of results and return its path; see `render` for the other arguments.

    cases: "corrected", "unchanged", "ruined" (others are taken too) -> images to show; may be empty.
    rules: kind of case -> how they were chosen, where it is not as in `RULES`.
    definitions: model or test set -> what it is, for the lists under the table.
    behaviour: the test set to plot against the share of relevance; no such plot if it or the shares are not there.
    compared: the model that "after" in the cases means; named above them.
    """
    with_map = results.original in results.foreground_share and behaviour in results.sets
    known = dict(definitions or {})
    icons = {model: glyph(results, model) for model in results.models}

    def table(values: Any) -> Any:
        return accuracy_table(results, values, title="Table of accuracies", definitions=known, icons=icons).html()

    return render(
        "page.html",
        path,
        title=title,
        summary=summary,
        setup=setup,
        results=results,
        table=table,
        icons=icons,
        cases=cases,
        notes=notes,
        rules=RULES | dict(rules or {}),
        definitions=known,
        behaviour=behaviour,
        compared=compared,
        with_intervals=any(ends_text(v) for row in results.values.values() for v in row.values()),
        accuracy_svg=accuracy_svg(results),
        behaviour_svg=map_and_behaviour_svg(results, behaviour) if with_map else None,
    )
