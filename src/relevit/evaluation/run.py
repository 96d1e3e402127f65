"""`evaluate`: accuracy of one or several models on one or several benchmarks, side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool

from relevit.data.benchmarks.table import BACKGROUNDS_CHALLENGE
from relevit.data.classes import match_classes
from relevit.data.open import AnySet, sets
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.evaluation.accuracy.class_sets import ClassSet, in_set, read_class_set
from relevit.evaluation.accuracy.predictions import Predictions
from relevit.evaluation.accuracy.report import Report, summarise
from relevit.evaluation.accuracy.top_five import PRECISIONS, TopFive
from relevit.evaluation.batches import Transform
from relevit.evaluation.engine import run
from relevit.evaluation.folder import RESULTS, RowsFolder
from relevit.evaluation.measurement import LoadedModel
from relevit.evaluation.rows import FORMATS, Format
from relevit.models.loading import Given, data_config, labelled, load
from relevit.models.view import evaluation_view
from relevit.processes import Processes

Benchmark = str | Path | Any  # a folder, or anything with __len__ and __getitem__
Protocol = Literal["standard", "paper"]
PROTOCOLS = ("standard", "paper")


def evaluate(
    model: Given | Mapping[str, Given],
    benchmark: Benchmark | Mapping[str, Benchmark],
    *,
    transform: Transform | None = None,
    class_map: str | Path | Mapping[str, int] | None = None,
    protocol: Protocol = "standard",
    out: str | Path | None = None,
    format: Format = "parquet",
    set_a: ClassSet | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str | torch.device | None = None,
    precision: Literal["float32", "bf16", "fp16"] = "float32",
) -> Report:
    """Accuracy of one or several models, each with its own preprocessing, in one pass over the images; and against the first.

    Args:
        model: an `nn.Module`, what `relevit.load` returns, or a name for `relevit.load`; or a dictionary of these by name.
        benchmark: a folder, or a data set with `__len__` and `__getitem__` of pairs (image, class index) or samples with `.image`
            and `.label`; or a dictionary of these by name. An image is a PIL image, a uint8 array (height, width, 3), or a float
            tensor (3, height, width) that is used as it is.
        device: where to run; by default where the model is.

    The other arguments, and what is returned and raised: see `relevit.api.evaluate`. Started by `torchrun` or `accelerate
    launch`, the processes share the shards; all must make the same call, and each returns the whole report.
    """
    _check(protocol=(protocol, PROTOCOLS), format=(format, FORMATS), precision=(precision, tuple(PRECISIONS)))
    if batch_size < 1 or workers < 0:
        raise UserError(f"batch_size must be at least 1 and workers at least 0, not {batch_size} and {workers}")
    if transform is not None and protocol == "paper":
        raise UserError(
            "protocol='paper' has a preprocessing of its own: leave transform out, or take the standard protocol"
        )
    chosen = None if set_a is None else read_class_set(set_a)
    team = Processes(device)
    opened = _opened(benchmark, protocol)
    models = [_loaded(name, each, transform, protocol) for name, each in labelled(model).items()]
    if not models:
        raise UserError("there is no model to evaluate")
    measurement = TopFive(precision, class_map)
    in_set_a = None if chosen is None else _set_a(chosen, opened, models, class_map)
    told: dict[str, Any] = {"protocol": protocol, "precision": precision, "format": format}
    work: dict[str, Any] = {"settings": told, "team": team, "batch_size": batch_size, "workers": workers}
    with run(models, opened, measurement, command="evaluate", out=out, **work) as done:
        settings: dict[str, Any] = (
            {"precision": precision} if done.folder is None else _told(done.folder, opened, models)
        )
        if chosen is not None:
            settings["set_a"] = chosen
        predictions = {name: rows.made(Predictions) for name, rows in done.rows.items()}
        report = summarise(predictions, protocol, in_set_a, {"settings": settings})
        if done.folder is not None and team.is_main:
            report.save(done.folder.out / RESULTS)
    return report


def _opened(given: Any, protocol: str) -> dict[str, AnySet]:
    """Benchmarks by name; of a dictionary by the names given, NAME/SET where there are several of a name."""
    opened = {name: opener() for name, opener in sets(given, protocol=protocol).items()}
    if not opened:
        raise UserError("there is no benchmark to evaluate on")
    empty = [name for name, images in opened.items() if isinstance(images, ImageSet) and not len(images)]
    if empty:
        raise UserError(f"{empty[0]} holds no images")
    return opened


def _told(folder: RowsFolder, names: Iterable[str], models: Sequence[LoadedModel]) -> dict[str, Any]:
    """What the report says of the settings, and where the rows lie."""
    return {
        "precision": folder.config["precision"],
        "format": folder.config["format"],
        "models": {model.name: folder.config["models"][model.name] for model in models},
        "rows": {
            name: {model.name: folder.rows(name, model.name).relative_to(folder.out).as_posix() for model in models}
            for name in names
        },
    }


def _loaded(name: str, model: Given, transform: Transform | None, protocol: str) -> LoadedModel:
    """Under the protocol "paper" every model gets its view, also one that came with another."""
    if isinstance(model, str | os.PathLike):
        return LoadedModel(name, *load(os.fspath(model), protocol=protocol))
    net, view = model if isinstance(model, tuple) else (model, transform)
    if protocol == "paper":
        return LoadedModel(name, net, evaluation_view(data_config(net, "paper")))
    return LoadedModel(name, net, view or evaluation_view(data_config(net)))


def _set_a(
    chosen: Sequence[str], opened: Mapping[str, AnySet], models: Sequence[LoadedModel], class_map: Any
) -> Callable[[str, str, Predictions], Bool[np.ndarray, " images"] | None]:
    """Tells of rows whether they are of set A; None where each group stands for many classes, as in the Backgrounds Challenge,
    and none of them is named. Raises UserError for a name that nobody knows."""
    indices = {model.name: match_classes(chosen, model.net, class_map).classes for model in models}
    folders = {name for images in opened.values() if isinstance(images, ImageSet) for name in images.class_names}
    unknown = [name for name in chosen if name not in folders and not any(name in known for known in indices.values())]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(f"set A names {unknown[0]}{more}, which is no class of a benchmark or a model")

    nets = {model.name: model.net for model in models}

    def inside(benchmark: str, model: str, rows: Predictions) -> Bool[np.ndarray, " images"] | None:
        kind = opened[benchmark].name.split("/")[0]
        if kind == BACKGROUNDS_CHALLENGE and not set(chosen) & set(rows.groups.tolist()):
            return None
        groups = sorted(set(rows.groups.tolist()))  # folders in sorted order tell nothing by their names
        classes = {} if class_map == "sorted" else match_classes(groups, nets[model], class_map).classes
        return in_set(rows, chosen, indices[model].values(), classes)

    return inside


def _check(**arguments: tuple[str, Sequence[str]]) -> None:
    for name, (value, allowed) in arguments.items():
        if value not in allowed:
            raise UserError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
