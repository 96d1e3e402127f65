"""What jobs do with a model, wherever its data come from: evaluate, measure, and tell what changed, each into the output folder."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from relevit.class_effects.effects import PAGE, write_effects
from relevit.data.sets import ImageSet
from relevit.evaluation import evaluate as run
from relevit.evaluation import read_predictions
from relevit.evaluation.measurements import measure as run_test
from relevit.evaluation.measurements import measurement, open_data
from relevit.experiments.hits import rows_folder


def evaluate(loaded: tuple[Any, Any], sets: Mapping[str, Any], key: str, folder: Path, protocol: Any) -> dict[str, Any]:
    """Accuracy of a model (with its view) on sets; a row for every image is in OUT/evaluations/KEY."""
    report = run({"model": loaded}, dict(sets), protocol=protocol, out=folder / "evaluations" / key)
    found = {}
    for name in sets:
        rows = report.predictions[name]["model"]
        unreadable = len(report.unreadable[name])
        right = {"r1": 100 * float(rows.hit1.mean()), "r5": 100 * float(rows.hit5.mean())}
        found[name] = {"images": len(rows.keys), "unreadable": unreadable, **right}
    return found


def measure(
    test: str,
    loaded: tuple[Any, Any],
    data: str | ImageSet,
    limit: int | None,
    options: Mapping[str, Any] | None,
    train: str | None = None,
) -> dict[str, float]:
    """A test of relevit.evaluation.measurements on at most `limit` images, drawn once: its figures by name. data: a set, or as
    `relevit measure` takes it. train: what it is trained on, if anything."""
    bank = None
    if isinstance(data, str):
        data, bank = open_data(measurement(test, options).needs, data, train=train)
    result = run_test(test, {"model": loaded}, data.limited(limit), train=bank, options=options)["model"]
    return {str(figure): float(value) for figure, value in result if isinstance(value, int | float) and isfinite(value)}


def effects(
    models: Mapping[str, tuple[tuple[Any, Any], str]], name: str, data: Any, key: str, folder: Path, protocol: Any
) -> dict[str, Any]:
    """The page OUT/effects/KEY/effects.html of what changed on a set between two models, label to (model and view) and the key of its
    evaluation, from the rows of these; how many images and classes changed."""
    loaded = {label: model for label, (model, _) in models.items()}
    rows = {label: read_predictions(rows_folder(folder, evaluation, name)) for label, (_, evaluation) in models.items()}
    place = folder / "effects" / key
    found, content = write_effects(place, loaded, name, data, rows, protocol=protocol)
    images = {kind: count for kind, count in content["images"].items() if kind != "all"}
    moved = {"classes that gain": found.count(1), "classes that lose": found.count(-1)}
    return {"page": f"effects/{key}/{PAGE}", "counts": {**images, **moved}}
