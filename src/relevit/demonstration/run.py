"""`relevit demo`: fine-tune the built-in model by several methods, measure before and after, and write a report."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from relevit.data.builtin.digits import CLASSES, RELIABILITY, SET_A, TEST_SETS, Pictures, test_set
from relevit.data.builtin.sets import builtin_set
from relevit.demonstration.text import DEFINITIONS, LEAD, NOTES, RULES, verdict
from relevit.evaluation import Predictions, evaluate
from relevit.experiments.sources.builtin_work import (
    EPOCHS,
    OBJECTS,
    maps_of,
    share_on_foreground,
    share_pictures,
    train,
)
from relevit.files import atomic_write
from relevit.models.loading import is_checkpoint, load, save_checkpoint
from relevit.report.page import render_page
from relevit.report.pictures import Case
from relevit.report.readme import render_readme_picture
from relevit.report.results import Results, Values, terminal_table
from relevit.statistics import interval, paired
from relevit.statistics.estimate import Estimate

METHODS = ("relevance", "control", "background_swap", "relevance+background_swap")
PER_CLASS = 3
VIEWS, ALL_VIEWS = 1, 3  # pictures of each object of the test sets that are measured, and that there are
CASES_SET, CASES_EACH = "background_shuffled", 4
ROW = ("original", *METHODS)
GROUPS = {"set_a": "Classes seen in fine-tuning", "rest": "Classes held out"}


def run_one(folder: Path, seed: int, console: Console) -> Path:
    began = time.monotonic()
    rates = read_rates()
    original, _ = load("builtin")
    console.print(
        f"[bold]relevit demo[/bold]: a small vision transformer that reads the background is fine-tuned in "
        f"{len(METHODS)} ways,\neach on the same {PER_CLASS * len(SET_A)} samples, then measured on a third of each of "
        f"{len(TEST_SETS)} test sets\n({VIEWS * OBJECTS} of {ALL_VIEWS * OBJECTS:,} pictures). Seed {seed}."
    )
    models: dict[str, nn.Module] = {"original": original}
    for number, method in enumerate(METHODS, 1):
        rate = rates[f"{method}-{PER_CLASS}"]
        seconds = time.monotonic() - began
        text = f"[{number}/{len(METHODS)}] {seconds:4.0f} s  {method}, learning rate {rate:g}, {EPOCHS} epochs"
        console.print(text, markup=False, highlight=False)
        models[method] = _fine_tuned(method, seed, rate, folder / "models" / method)
    console.print("Measuring ...")
    predictions = predict(models)
    results = as_results(predictions, shares(models))
    cases = choose_cases(
        predictions[CASES_SET], {"original": original, LEAD: models[LEAD]}, test_set(CASES_SET, "test", VIEWS)
    )
    seconds = time.monotonic() - began
    setup = {
        "command": f"relevit demo --seed {seed}",
        "model": "timm VisionTransformer, 48 x 48 pixels, 8 x 8 patches, 6 blocks of 128",
        "fine-tuning": f"{PER_CLASS} samples of each of {len(SET_A)} classes, {EPOCHS} epochs, batches of 8, AdamW",
        "learning rates": ", ".join(f"{m}: {rates[f'{m}-{PER_CLASS}']:g}" for m in METHODS),
        "test pictures": f"{len(predictions[TEST_SETS[0]]['original'])} of each set (a fixed third of it)",
        "seed": str(seed),
        "versions": versions(),
        "seconds": f"{seconds:.0f}",
    }
    write_metrics(folder / "metrics.json", setup, results)
    render_readme_picture(folder / "summary.png", results, cases, overwrite=True)
    report = render_page(
        folder / "report.html",
        "Does the model look at the object?",
        verdict(results),
        setup,
        results,
        cases,
        [
            *NOTES,
            "Intervals (95%) are of the test pictures, drawn by object; they do not tell how another draw of training "
            "samples would do: relevit demo --full does, over five seeds.",
        ],
        rules=RULES,
        definitions=DEFINITIONS,
        behaviour="background_shuffled",
        compared=LEAD,
    )
    show(console, results, verdict(results))
    console.print(f"\n{seconds:.0f} seconds. Report: {report}\nFigures: {folder / 'metrics.json'}", highlight=False)
    return report


def _fine_tuned(method: str, seed: int, rate: float, folder: Path) -> nn.Module:
    """The fine-tuned model, also as a checkpoint in `folder`; read from there if an interrupted demo made it before.

    On one thread: at this size a second one gains little, and the result is the same on any number of cores.
    """
    if is_checkpoint(folder):
        return load(str(folder))[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = train(method, seed, rate, per_class=PER_CLASS)
    finally:
        torch.set_num_threads(threads)
    save_checkpoint(folder, model)
    return model


def read_rates() -> dict[str, float]:
    """The learning rates that the rule chose, from `relevit demo --full`: `"<method>-<n>"` to rate."""
    return json.loads((Path(__file__).parent / "rates.json").read_text())


def versions() -> str:
    """Of what the figures depend on."""
    import timm

    return f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"


def predict(models: Mapping[str, nn.Module]) -> dict[str, dict[str, Predictions]]:
    """What every model answers to the pictures of every test set: set to model to predictions."""
    view = load("builtin")[1]
    sets = {name: builtin_set(name, VIEWS) for name in TEST_SETS}
    found = evaluate({name: (model, view) for name, model in models.items()}, sets).predictions
    return {set_name: {name: found[set_name][name] for name in models} for set_name in sets}


def shares(models: Mapping[str, nn.Module]) -> dict[str, Estimate]:
    """The share of each model's relevance that lies on the object, in percent."""
    pictures = share_pictures(VIEWS)
    return {
        name: interval.mean(share_on_foreground(model, pictures), pictures.objects, (0.0, 1.0)).percent
        for name, model in models.items()
    }


def as_results(predictions: Mapping[str, Mapping[str, Predictions]], share: Mapping[str, Estimate]) -> Results:
    """Accuracies with intervals clustered by object, and paired differences from the original."""
    models = list(share)
    values: Values = {name: {} for name in models}
    groups: dict[str, Values] = {title: {name: {} for name in models} for title in GROUPS.values()}
    differences: Values = {name: {} for name in models if name != "original"}
    seen = [CLASSES[number] for number in SET_A]
    for set_name, by_model in predictions.items():
        start = by_model["original"].hit1
        for name, rows in by_model.items():
            in_a = np.isin(rows.groups, seen)
            values[name][set_name] = interval.share(rows.hit1, rows.objects).percent
            for title, chosen in zip(GROUPS.values(), (in_a, ~in_a), strict=True):
                part = rows.only(chosen)
                groups[title][name][set_name] = interval.share(part.hit1, part.objects).percent
            if name != "original":
                change = paired.difference_of_images(start, rows.hit1, rows.objects)
                differences[name][set_name] = change.percent
    return Results(models, list(predictions), values, "original", groups, dict(share), differences)


def choose_cases(
    predictions: Mapping[str, Predictions], models: Mapping[str, nn.Module], pictures: Pictures
) -> dict[str, list[Case]]:
    """Corrected, unchanged and ruined pictures of two models, before and after, by a fixed rule: the set in an order shuffled once,
    the first four of each kind, no class twice."""
    before, after = (predictions[name] for name in models)
    kinds = {
        "corrected": ~before.hit1 & after.hit1,
        "unchanged": before.top5[:, 0] == after.top5[:, 0],
        "ruined": before.hit1 & ~after.hit1,
    }
    order = np.random.default_rng(0).permutation(len(pictures))
    cases: dict[str, list[Case]] = {}
    for kind, members in kinds.items():
        chosen: list[int] = []
        for i in order[members[order]]:
            if len(chosen) < CASES_EACH and pictures.labels[i] not in pictures.labels[chosen]:
                chosen.append(int(i))
        cases[kind] = _cases(before, after, list(models.values()), pictures, chosen) if chosen else []
    return cases


def _cases(
    before: Predictions, after: Predictions, models: Sequence[nn.Module], pictures: Pictures, chosen: list[int]
) -> list[Case]:
    some = pictures.subset(np.array(chosen))
    maps_before, maps_after = (maps_of(model, some).numpy() for model in models)
    return [
        Case(
            some.images[k],
            some.masks[k],
            maps_before[k],
            maps_after[k],
            CLASSES[pictures.labels[i]],
            CLASSES[before.top5[i, 0]],
            min(1.0, float(before.confidence[i])),
            CLASSES[after.top5[i, 0]],
            min(1.0, float(after.confidence[i])),
            pictures.name,
        )
        for k, i in enumerate(chosen)
    ]


def write_metrics(path: Path, setup: dict[str, Any], results: Results) -> None:
    """`{"setup": ..., "models": {model: {set: percent}}, "intervals": ..., "foreground_share": ..., "groups": ...}`."""

    def numbers(values: Values) -> dict[str, dict[str, float]]:
        return {m: {s: round(v.value, 2) for s, v in row.items()} for m, row in values.items()}

    content = {
        "setup": {**setup, "reliability": RELIABILITY},
        "models": numbers(results.values),
        "foreground_share": {m: round(v.value, 2) for m, v in results.foreground_share.items()},
        "intervals": {
            m: {s: [round(x, 2) for x in v.ends] for s, v in row.items()} for m, row in results.values.items()
        },
        "groups": {title: numbers(values) for title, values in results.groups.items()},
    }
    atomic_write(path, json.dumps(content, indent=1) + "\n")


def show(console: Console, results: Results, summary: Sequence[str]) -> None:
    """The table and the verdict on the terminal."""
    console.print(terminal_table(results), highlight=False)
    for line in summary:
        console.print(line, highlight=False)
