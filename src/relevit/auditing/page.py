"""The page of an audit: verdict, accuracy with each background, where the relevance lies, the classes that depend on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from relevit.files import atomic_write
from relevit.report.page import SHAPES, refuse_existing
from relevit.report.panels import Panel, environment
from relevit.report.plots import COLOURS, MARKERS, accuracy_svg, series
from relevit.report.results import Results
from relevit.statistics.estimate import Estimate

MANY = 12  # classes in the open part of the table; the others are folded


def render_audit(
    path: str | Path,
    title: str,
    content: Mapping[str, Any],
    conditions: Mapping[str, tuple[str, str]],
    strip: Sequence[tuple[str, np.ndarray]],
    examples: Mapping[str, Mapping[str, Sequence[Panel]]],
    setup: Mapping[str, str],
    notes: Sequence[str],
) -> Path:
    """Write the page and return its path; it shows the figures of `content`, the audit as JSON, and nothing else.

    conditions: what was done, in a few words and in one or two. strip: one picture in every condition, with captions. examples: model -> class ->
    panels. setup: what was run, by name. Raises UserError if the file is there already, or cannot be written.
    """
    path = Path(path)
    refuse_existing(path)
    models: Mapping[str, Any] = content["models"]
    first = next(iter(models))
    words = {key: long for key, (long, _) in conditions.items()}
    shown = [key for key in words if all(key in each["accuracy"] for each in models.values())]
    results = Results(
        list(models),
        [words[key] for key in shown],
        {name: {words[key]: _accuracy(each["accuracy"][key]) for key in shown} for name, each in models.items()},
        first,
    )
    html = (
        environment()
        .get_template("audit.html")
        .render(
            title=title,
            content=content,
            models=models,
            first=first,
            words=words,
            short={key: brief for key, (_, brief) in conditions.items()},
            shown=shown,
            strip=strip,
            examples=examples,
            setup=setup,
            notes=notes,
            many=MANY,
            glyphs={
                model: (i % len(COLOURS), SHAPES[MARKERS[i % len(MARKERS)]]) for model, i in series(results).items()
            },
            plot=Markup(accuracy_svg(results)),
        )
    )
    atomic_write(path, html)
    return path


def _accuracy(found: Mapping[str, Any]) -> Estimate:
    return Estimate(found["percent"], *found["interval"], found["pictures"], "images")
