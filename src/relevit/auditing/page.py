"""The page of an audit: verdict, accuracy with each background, where the relevance lies, the classes that depend on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relevit.report.page import render
from relevit.report.panels import Panel
from relevit.report.plots import accuracy_svg, glyph
from relevit.report.results import Results
from relevit.report.table import Cell, Kind, Row, Table
from relevit.report.words import DASH, number, signed
from relevit.statistics.estimate import Estimate

MANY = 12  # classes in the open part of the table; the others are folded
Models = Mapping[str, Mapping[str, Any]]  # name -> the figures of one model, as the audit's JSON has them


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
    models: Models = content["models"]
    shown = {
        key: words for key, words in conditions.items() if all(key in each["accuracy"] for each in models.values())
    }
    words = {key: long for key, (long, _) in shown.items()}
    results = Results(
        list(models),
        list(words.values()),
        {name: {words[key]: _accuracy(each["accuracy"][key]) for key in words} for name, each in models.items()},
        next(iter(models)),
    )
    return render(
        "audit.html",
        path,
        title=title,
        content=content,
        models=models,
        first=results.original,
        words=words,
        strip=strip,
        examples=examples,
        setup=setup,
        notes=notes,
        many=MANY,
        accuracies=accuracy_table(models, words, results).html(),
        shares=share_table(models).html(),
        class_table=lambda name, classes: class_table(name, classes, shown).html(),
        plot=accuracy_svg(results),
    )


def accuracy_table(models: Models, words: Mapping[str, str], results: Results) -> Table:
    """A column a model: accuracy in every condition, and what the class of the background does."""
    first = results.original
    columns: Row = [Cell("pictures", hidden=True), *(Cell(name, icon=glyph(results, name)) for name in models)]
    rows: list[Row] = []
    for key, text in words.items():
        good = key != "object_removed"  # without the object, fewer right answers are better
        cells = [
            _figure(each["accuracy"][key], _against(name, first, each, "accuracy_minus_first").get(key), good)
            for name, each in models.items()
        ]
        rows.append([text, *cells])
    contrast = [
        _figure(
            each["own_minus_other_background"],
            each["effect_minus_first"] if name != first and each["verdict"]["rests_on"] == "contrast" else None,
            False,
            best=True,
        )
        for name, each in models.items()
    ]
    rows.append([Cell("own minus other background", best=True), *contrast])
    for text, key in (
        ("names the exchanged background\u2019s class", "named_the_exchanged_background"),
        ("names the class from the background alone", "named_from_the_background_alone"),
    ):
        figures = [each[key] for each in models.values()]
        cells = [Cell(number(f["percent"]), below=[f"by chance {number(f['by_chance'])}"]) for f in figures]
        rows.append([text, *cells])
    return Table("Table of accuracies", columns, rows, classes=_few(models))


def share_table(models: Models) -> Table:
    """A column a model: how much of the relevance lies on the background, beside its share of the area."""
    first = next(iter(models))
    relevance = [
        _figure(
            each["relevance_on_background"],
            _against(name, first, each, "relevance_on_background_minus_first") or None,
            False,
        )
        for name, each in models.items()
    ]
    area = [_figure(each["area_of_background"]) for each in models.values()]
    more = [_figure(each["relevance_minus_area"], sign=True) for each in models.values()]
    rows: list[Row] = [
        ["relevance on the background", *relevance],
        ["area of the background", *area],
        ["relevance minus area", *more],
    ]
    return Table("Table of shares of relevance", [Cell("share", hidden=True), *models], rows, classes=_few(models))


def class_table(name: str, classes: Sequence[Mapping[str, Any]], conditions: Mapping[str, tuple[str, str]]) -> Table:
    """A row a class: its fall, accuracy in every condition, relevance and area of the background."""
    heads = [Cell(brief, title=f"accuracy, {long}") for long, brief in conditions.values()]
    columns: Row = [
        "class",
        "pictures",
        "fall, own to other",
        *heads,
        Cell("relevance", title="share of the relevance that lies on the background"),
        Cell("area", title="share of the picture that is background"),
    ]
    rows: list[Row] = [
        [
            each["class"],
            str(each["pictures"]),
            _figure(each["fall"]),
            *(number(each["accuracy"][key], 0) for key in conditions),
            number(each["relevance_on_background"], 0),
            number(each["area_of_background"], 0),
        ]
        for each in classes
    ]
    return Table(name, columns, rows, classes="classes")


def _figure(
    figure: Mapping[str, Any] | None,
    change: Mapping[str, Any] | None = None,
    good: bool = True,
    *,
    best: bool = False,
    sign: bool = False,
) -> Cell:
    """A figure with its interval. change: the paired difference from the first model; good: whether more is better."""
    if figure is None:
        return Cell(DASH)
    text = number(figure["percent"] if "percent" in figure else figure["points"], sign=sign)
    kind: Kind = "open"
    if change is not None and (change["interval"][0] > 0 or change["interval"][1] < 0):
        kind = "better" if (change["points"] > 0) == good else "worse"
    low, high = map(number, figure["interval"])
    return Cell(
        text,
        best=best,
        change="" if change is None else signed(change["points"]),
        kind=kind,
        below=[f"{low} to {high}"],
    )


def _against(name: str, first: str, figures: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What the audit says of a model against the first one; nothing for that itself."""
    return {} if name == first else figures[key] or {}


def _few(models: Models) -> str:
    return "few" if len(models) < 4 else ""


def _accuracy(found: Mapping[str, Any]) -> Estimate:
    low, high = found["interval"]
    return Estimate(found["percent"], low, high, found["pictures"], "images")
