"""The page of an audit: verdict, accuracy with each background, where the relevance lies, the classes that depend on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relevit.auditing.conditions import ALONE, CONDITIONS
from relevit.auditing.examples import Examples
from relevit.auditing.result import Audit
from relevit.report.page import render
from relevit.report.plots import accuracy_svg, glyph
from relevit.report.results import Results
from relevit.report.table import Cell, Kind, Row, Table
from relevit.report.words import DASH, number, signed

MANY = 12  # classes in the open part of the table; the others are folded
Models = Mapping[str, Mapping[str, Any]]  # name -> the figures of one model, as the audit's JSON has them


def render_audit(path: str | Path, audit: Audit, setup: Mapping[str, str], notes: Sequence[str]) -> Path:
    """Write the page and return its path; it shows the figures of the audit as JSON, and examples.

    setup: what was run, by name. Raises UserError if the file is there already, or cannot be written.
    """
    content = audit.to_dict()
    models: Models = content["models"]
    examples = Examples(audit)
    shown = {key: words for key, words in CONDITIONS.items() if all(key in of["accuracy"] for of in models.values())}
    words = {key: condition.words for key, condition in shown.items()}
    results = Results(
        list(models),
        list(words.values()),
        {name: {words[key]: audit.figures[name].accuracy[key].r1_interval for key in words} for name in models},
        audit.first,
    )
    alone = len(models) == 1
    return render(
        "audit.html",
        path,
        title="Does the classifier look at the background?" if alone else "Do the classifiers look at the background?",
        content=content,
        models=models,
        first=results.original,
        words=words,
        strip=examples.strip(),
        examples={name: examples.of_classes(name) for name in models},
        setup=setup,
        notes=notes,
        many=MANY,
        accuracies=accuracy_table(models, words, results).html(),
        shares=share_table(models).html(),
        class_table=lambda name, classes: class_table(name, classes, list(shown)).html(),
        plot=accuracy_svg(results),
    )


def accuracy_table(models: Models, words: Mapping[str, str], results: Results) -> Table:
    """A column a model: accuracy in every condition, and what the class of the background does."""
    columns: Row = [Cell("pictures", hidden=True), *(Cell(name, icon=glyph(results, name)) for name in models)]
    rows: list[Row] = []
    for key, text in words.items():
        good = key != ALONE  # without the object, fewer right answers are better
        changes = [figures.get("accuracy_minus_first", {}).get(key) for figures in models.values()]
        cells = [
            _figure(figures["accuracy"][key], change, good)
            for figures, change in zip(models.values(), changes, strict=True)
        ]
        rows.append([text, *cells])
    contrast = [
        _figure(
            figures["own_minus_other_background"],
            figures.get("effect_minus_first") if figures["verdict"]["rests_on"] == "contrast" else None,
            False,
            best=True,
        )
        for figures in models.values()
    ]
    rows.append([Cell("own minus other background", best=True), *contrast])
    for text, key in (
        ("names the exchanged background\u2019s class", "named_the_exchanged_background"),
        ("names the class from the background alone", "named_from_the_background_alone"),
    ):
        named = [figures[key] for figures in models.values()]
        cells = [Cell(number(f["percent"]), below=[f"by chance {number(f['by_chance'])}"]) for f in named]
        rows.append([text, *cells])
    return Table("Table of accuracies", columns, rows, classes=_few(models))


def share_table(models: Models) -> Table:
    """A column a model: how much of the relevance lies on the background, beside its share of the area."""
    changed = "relevance_on_background_minus_first"
    rows: list[Row] = [
        [
            "relevance on the background",
            *(_figure(of["relevance_on_background"], of.get(changed), False) for of in models.values()),
        ],
        ["area of the background", *(_figure(of["area_of_background"]) for of in models.values())],
        ["relevance minus area", *(_figure(of["relevance_minus_area"], sign=True) for of in models.values())],
    ]
    return Table("Table of shares of relevance", [Cell("share", hidden=True), *models], rows, classes=_few(models))


def class_table(name: str, classes: Sequence[Mapping[str, Any]], conditions: Sequence[str]) -> Table:
    """A row a class: its fall, accuracy in every condition, relevance and area of the background."""
    heads = [Cell(CONDITIONS[key].short, title=f"accuracy, {CONDITIONS[key].words}") for key in conditions]
    relevance = Cell("relevance", title="share of the relevance that lies on the background")
    area = Cell("area", title="share of the picture that is background")
    columns: Row = ["class", "pictures", "fall, own to other", *heads, relevance, area]
    rows: list[Row] = []
    for group in classes:
        shares = (group[key] for key in ("relevance_on_background", "area_of_background"))
        rates = [number(rate, 0) for rate in (*(group["accuracy"][key] for key in conditions), *shares)]
        rows.append([group["class"], str(group["pictures"]), _figure(group["fall"]), *rates])
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


def _few(models: Models) -> str:
    return "few" if len(models) < 4 else ""
