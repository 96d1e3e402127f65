"""Every measurement of relevance and robustness beyond accuracy, by name: `relevit measure` runs them from this table.

A further one is a class like those of maps/ (see measurement.py), named here, or from outside by an entry point of the group
`relevit.measurements`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import nn

from relevit.data.benchmarks import class_folders
from relevit.errors import UserError
from relevit.evaluation.engine import prepare, run, truths
from relevit.evaluation.fingerprints import settings_of
from relevit.evaluation.folder import RESULTS, RowsFolder
from relevit.evaluation.frozen.knn import NearestNeighbours
from relevit.evaluation.maps.insertion_deletion import InsertionDeletion
from relevit.evaluation.maps.localization import Localization
from relevit.evaluation.maps.perturbation import Perturbation
from relevit.evaluation.maps.segmentation import Segmentation
from relevit.evaluation.maps.sufficient_subsets import SufficientSubsets
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurement import LoadedModel, Measurement
from relevit.evaluation.rows import counted, faults_of
from relevit.evaluation.sources import LabelledSet
from relevit.extensions import Table
from relevit.files import atomic_write
from relevit.processes import Processes

COMMON = ("seed", "batch_size")  # options that all share
TRAIN = "train"  # the name of the set that features are trained on

MEASUREMENTS: Table[Any] = Table(
    "measurements",
    {
        "segmentation": Segmentation,
        "localization": Localization,
        "perturbation": Perturbation,
        "insertion_deletion": InsertionDeletion,
        "knn": NearestNeighbours,
        "sufficient_subsets": SufficientSubsets,
    },
)


def options_of(measurement: Any) -> tuple[str, ...]:
    """The names of a measurement's own options."""
    return tuple(field.name for field in dataclasses.fields(measurement) if field.name not in COMMON)


def measurement(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """The row of a name; raises UserError for one that is not in the table, and for options that it does not have."""
    if name not in MEASUREMENTS:
        known = "; ".join(f"{each} ({row.description})" for each, row in MEASUREMENTS.items())
        raise UserError(f"there is no test {name!r}; known are: {known}")
    own = options_of(MEASUREMENTS[name])
    unknown = [each for each in options or {} if each not in own]
    if unknown:
        raise UserError(f"{name} has no option {unknown[0]!r}; its options are {', '.join(own) or 'none'}")
    return MEASUREMENTS[name]


def measure(
    test: str,
    model: nn.Module,
    view: Any,
    data: Any,
    *,
    train: Any = None,
    batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    **options: Any,
) -> Any:
    """A measurement of one model on one set, in memory.

    Args:
        test: its name in MEASUREMENTS.
        model, view: as `relevit.load` gives them.
        data: what it needs: samples with masks, or an `ImageSet`, samples, a folder of class folders.
        train: one such set to train on, for tests that need it.
        batch_size: pictures in one pass; by default as many as the measurement asks for.
        workers: processes that read images; 0 reads in this one.
        seed: of all draws.
        options: of the measurement.

    Returns:
        A `Measured`; of a measurement from outside, whatever it makes of the rows.

    Raises:
        UserError: an option that is none, an empty set, a set that does not go with the model, no image that counts.
    """
    models, chosen = {"model": (model, view)}, {**options, "seed": seed}
    return measure_models(test, models, data, train=train, batch_size=batch_size, workers=workers, options=chosen)[
        "model"
    ]


def measure_models(
    test: str,
    models: Mapping[str, tuple[nn.Module, Any]],
    data: Any,
    *,
    train: Any = None,
    name: str = "data",
    out: str | Path | None = None,
    told: Mapping[str, Any] | None = None,
    device: Any = None,
    batch_size: int | None = None,
    workers: int = 0,
    options: Mapping[str, Any] | None = None,
    report: Callable[[dict[str, Any]], str] | None = None,
) -> dict[str, Any]:
    """A measurement of several models, each image read once; see `measure`.

    Args:
        name: of the set, for the folder.
        out: a folder for the rows: the same call goes on there after an interruption, and of a further model that alone is done.
        told: what else the rows depend on, for the folder.
        options: of the measurement, and the seed of all draws.
        device: where to run; by default where each model is.
        report: from the results by model to the text of OUT/results.json.

    Started by `torchrun` or `accelerate launch`, the processes share the shards; all must make the same call, and each returns
    the whole result.
    """
    options = dict(options or {})
    row, batch_size = _begun(test, options, batch_size)
    team = Processes(device)
    sets = {name: _labelled(name, data, row.needs == "masks")}
    if row.needs == "train_and_test":
        sets[TRAIN] = _to_train_on(train, data)
        row.check_sets(sets[name], sets[TRAIN])
    loaded = [LoadedModel(label, net, view) for label, (net, view) in models.items()]
    works = prepare(loaded, sets, row)
    folder = None
    if out is not None:
        config = settings_of(loaded, sets, truths(works), test=test, options=options, **(told or {}))
        folder = RowsFolder(out, "measure", config, row.columns())
    with nullcontext() if folder is None else folder.held(team):
        rows = run(loaded, sets, row, works, folder=folder, team=team, batch_size=batch_size, workers=workers)
        results = {
            model.name: _figures(row, rows[name][model.name], rows[TRAIN][model.name] if TRAIN in rows else None, model)
            for model in loaded
        }
        if folder is not None and report is not None and team.is_main:
            atomic_write(folder.out / RESULTS, report(results))
        return results


def _begun(test: str, options: Mapping[str, Any], batch_size: int | None) -> tuple[Any, int]:
    """The measurement with its options, of which all share some that it may not have; and how many images are in a batch."""
    kind = measurement(test, {name: value for name, value in options.items() if name not in COMMON})
    size = kind.batch_size if batch_size is None else batch_size
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(f"batch_size must be a whole number from 1, not {size!r}")
    own = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in {**options, "batch_size": size}.items() if name in own}), size


def _to_train_on(train: Any, data: Any) -> LabelledSet:
    if train is None:
        raise UserError("this test needs class folders to train on: give --train DIR")
    if train is data:
        raise UserError("the test set is the training set: give two")
    return _labelled(TRAIN, train, masked=False)


def _figures(chosen: Measurement, table: pa.Table, train: pa.Table | None, model: LoadedModel) -> Any:
    """The result of the rows. Raises UserError where no image counts."""
    faults, there = faults_of(table), counted(table)
    if not len(there):
        for reason, message in getattr(chosen, "nothing", {}).items():
            if any(fault.reason == reason for fault in faults):
                raise UserError(message.format(count=len(faults)))
        first = f": {faults[0].name}, {faults[0].reason}" if faults else ""
        raise UserError(f"none of the {len(faults)} images could be read{first}")
    if train is not None:
        result = chosen.figures_of_both(there, train, model)  # type: ignore[attr-defined]
    else:
        result = chosen.figures(there)
    return dataclasses.replace(result, left_out=faults) if isinstance(result, Measured) else result


def _labelled(name: str, data: Any, masked: bool) -> LabelledSet:
    images = LabelledSet(name, class_folders(data) if isinstance(data, str | Path) else data, masked)
    if images.is_stream:
        raise UserError(
            f"{name} can only be read from its beginning to its end: give its images as folders or tar files"
        )
    if not images.length:
        raise UserError("the data set holds no images: give one with at least one")
    return images
