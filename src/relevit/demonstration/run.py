"""`relevit demo`: fine-tune the built-in model in four ways, measure before and after, and write a report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from relevit.data.builtin.digits import CLASSES, SET_A, TEST_SETS
from relevit.data.builtin.sets import builtin_set
from relevit.demonstration.pages import CASES_SET, GROUPS, as_results, cases_of, show, versions, write_report
from relevit.demonstration.text import LEAD
from relevit.evaluation import Predictions, evaluate
from relevit.experiments import hits
from relevit.experiments.experiment import SHARE
from relevit.experiments.results import ORIGINAL, Cell
from relevit.experiments.sources.builtin_work import EPOCHS, OBJECTS, share_on_foreground, share_pictures, train
from relevit.models.loading import is_checkpoint, load, save_checkpoint
from relevit.statistics import interval

METHODS = ("relevance", "control", "background_swap", "relevance+background_swap")
PER_CLASS = 3
VIEWS, ALL_VIEWS = 1, 3  # pictures of each object of the test sets that are measured, and that there are


def run_one(folder: Path, seed: int, console: Console) -> Path:
    """One seed of the story, in a folder of its own; returns the report's path."""
    began = time.monotonic()
    rates = read_rates()
    original, _ = load("builtin")
    console.print(
        f"[bold]relevit demo[/bold]: a small vision transformer that reads the background is fine-tuned in "
        f"{len(METHODS)} ways,\neach on the same {PER_CLASS * len(SET_A)} samples, then measured on a third of each of "
        f"{len(TEST_SETS)} test sets\n({VIEWS * OBJECTS} of {ALL_VIEWS * OBJECTS:,} pictures). Seed {seed}."
    )
    models: dict[str, nn.Module] = {ORIGINAL: original}
    for number, method in enumerate(METHODS, 1):
        rate = rates[f"{method}-{PER_CLASS}"]
        seconds = time.monotonic() - began
        text = f"[{number}/{len(METHODS)}] {seconds:4.0f} s  {method}, learning rate {rate:g}, {EPOCHS} epochs"
        console.print(text, markup=False, highlight=False)
        models[method] = _fine_tuned(method, seed, rate, folder / "models" / method)
    console.print("Measuring ...")
    rows = predict(models)
    results = as_results(list(measured(models, rows)))
    compared = [rows[CASES_SET][name] for name in (ORIGINAL, LEAD)]
    cases = cases_of(original, models[LEAD], compared, builtin_set(CASES_SET, VIEWS))
    seconds = time.monotonic() - began
    setup = {
        "command": f"relevit demo --seed {seed}",
        "model": "timm VisionTransformer, 48 x 48 pixels, 8 x 8 patches, 6 blocks of 128",
        "fine-tuning": f"{PER_CLASS} samples of each of {len(SET_A)} classes, {EPOCHS} epochs, batches of 8, AdamW",
        "learning rates": ", ".join(f"{m}: {rates[f'{m}-{PER_CLASS}']:g}" for m in METHODS),
        "test pictures": f"{len(rows[TEST_SETS[0]][ORIGINAL])} of each set (a fixed third of it)",
        "seed": str(seed),
        "versions": versions(),
        "seconds": f"{seconds:.0f}",
    }
    note = (
        "Intervals (95%) are of the test pictures, drawn by object; they do not tell how another draw of training samples would do: "
        "relevit demo --full does, over five seeds."
    )
    report = write_report(folder, setup, results, cases, [note])
    show(console, results)
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


def predict(models: Mapping[str, nn.Module]) -> Mapping[str, Mapping[str, Predictions]]:
    """What every model answers to the pictures of every test set: set to model to predictions."""
    view = load("builtin")[1]
    sets = {name: builtin_set(name, VIEWS) for name in TEST_SETS}
    return evaluate({name: (model, view) for name, model in models.items()}, sets).predictions


def measured(models: Mapping[str, nn.Module], predictions: Mapping[str, Mapping[str, Predictions]]) -> Iterator[Cell]:
    """Accuracies with intervals clustered by object, paired changes from the original, and the share of each model's relevance that
    lies on the object."""
    pictures = share_pictures(VIEWS)
    for row, model in models.items():
        for name in TEST_SETS:
            for group in ("all", *GROUPS):
                before, after = (_of_group(predictions[name][each], group) for each in (ORIGINAL, row))
                change = None if row == ORIGINAL else hits.change(before, after, "r1")
                yield Cell(row, name, group=group, ours=hits.estimate([after], "r1"), change=change)
        share = interval.mean(share_on_foreground(model, pictures), pictures.objects, (0.0, 1.0))
        yield Cell(row, SHARE, ours=share.percent)


def _of_group(rows: Predictions, group: str) -> Predictions:
    seen = np.isin(rows.groups, [CLASSES[number] for number in SET_A])
    return rows if group == "all" else rows.only(seen == (group == "set_a"))
