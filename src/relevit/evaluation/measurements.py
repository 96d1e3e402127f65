"""Every measurement of relevance and robustness beyond accuracy, by name: `relevit measure` runs them from this table.

A further one is a class like those of maps/ (see measurement.py), named here, or from outside by an entry point of the group
`relevit.measurements`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import nn

from relevit.data.open import one_of, sets
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.evaluation.engine import run
from relevit.evaluation.folder import RESULTS
from relevit.evaluation.frozen.knn import NearestNeighbours
from relevit.evaluation.maps.insertion_deletion import InsertionDeletion
from relevit.evaluation.maps.localization import Localization
from relevit.evaluation.maps.perturbation import Perturbation
from relevit.evaluation.maps.segmentation import Segmentation
from relevit.evaluation.maps.sufficient_subsets import SufficientSubsets
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurement import LoadedModel
from relevit.evaluation.rows import counted, faults_of
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


def open_data(
    needs: str,
    source: Any,
    *,
    masks: str | None = None,
    ignore: str | None = None,
    train: Any = None,
    protocol: str = "standard",
    benchmark: str | None = None,
) -> tuple[ImageSet, ImageSet | None]:
    """The data of a measurement by what it needs, and what it trains on.

    source, train: what `relevit.data.open.one_of` takes, with `protocol` and `benchmark`. masks, ignore: folders of masks
    and of pixels to ignore. Raises UserError for an input that is missing, or that the test does not take.
    """
    if train is not None and needs != "train_and_test":
        raise UserError("this test trains on nothing: leave out --train")
    if needs == "masks":
        options: dict[str, Any] = {"ignore": ignore, "masked": True, "protocol": protocol}
        if benchmark is not None and len(sets(source, masks, **options)) == 1:
            raise UserError("this test needs images with masks, which benchmarks lack: leave out --benchmark")
        return one_of(source, benchmark, masks, **options)[1], None
    if masks is not None or ignore is not None:
        raise UserError(f"this test takes no masks: leave out {'--masks' if masks is not None else '--ignore'}")
    tested = one_of(source, benchmark, protocol=protocol)[1]
    return tested, None if train is None else one_of(train, protocol=protocol)[1]


def measure(
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
    """A measurement of several models on one set, each image read once.

    Args:
        test: its name in MEASUREMENTS.
        models: by name, each as `relevit.load` gives it.
        data: what it needs: samples with masks, or an `ImageSet`, samples, a folder of class folders.
        train: one such set to train on, for tests that need it.
        name: of the set, for the folder.
        out: a folder for the rows: the same call goes on there after an interruption, and of a further model that alone is done.
        told: what else the rows depend on, for the folder.
        device: where to run; by default where each model is.
        batch_size: pictures in one pass; by default as many as the measurement asks for.
        workers: processes that read images; 0 reads in this one.
        options: of the measurement, and the seed of all draws.
        report: from the results by model to the text of OUT/results.json.

    Started by `torchrun` or `accelerate launch`, the processes share the shards; all must make the same call, and each returns
    the whole result.

    Returns:
        By model a `Measured`; of a measurement from outside, whatever it makes of the rows.

    Raises:
        UserError: an option that is none, an empty set, a set that does not go with a model, no image that counts.
    """
    options, team = dict(options or {}), Processes(device)
    kind = measurement(test, {option: value for option, value in options.items() if option not in COMMON})
    size = kind.batch_size if batch_size is None else batch_size
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(f"batch_size must be a whole number from 1, not {size!r}")
    fields = {field.name for field in dataclasses.fields(kind)}
    row = kind(**{option: value for option, value in {**options, "batch_size": size}.items() if option in fields})
    given = _sets(row, name, data, train)
    loaded = [LoadedModel(label, net, view) for label, (net, view) in models.items()]
    settings = {"test": test, "options": options, **(told or {})}
    work: dict[str, Any] = {"settings": settings, "team": team, "batch_size": size, "workers": workers}
    with run(loaded, given, row, command="measure", out=out, **work) as done:
        results = {
            model.name: _figures(row, [rows[model.name] for rows in done.rows.values()], model) for model in loaded
        }
        if out is not None and report is not None and team.is_main:
            atomic_write(Path(out) / RESULTS, report(results))
        return results


def _sets(row: Any, name: str, data: Any, train: Any) -> dict[str, ImageSet]:
    """The set that is measured, by its name, and the one that the measurement trains on. Raises UserError."""
    given = {name: _images(data, row.needs == "masks")}
    if row.needs == "train_and_test":
        if train is None:
            raise UserError("this test needs class folders to train on: give --train DIR")
        if train is data:
            raise UserError("the test set is the training set: give two")
        given[TRAIN] = _images(train, masked=False)
        row.check_sets(given[name], given[TRAIN])
    return given


def _images(data: Any, masked: bool) -> ImageSet:
    """A set in the one form. Raises UserError for one without images."""
    _, images = one_of(data, masked=masked)
    if not len(images):
        raise UserError("the data set holds no images: give one with at least one")
    return images


def _figures(row: Any, tables: list[pa.Table], model: LoadedModel) -> Any:
    """The result of the rows, and of those to train on. Raises UserError where no image counts."""
    table, *train = tables
    faults, there = faults_of(table), counted(table)
    if not len(there):
        for reason, message in getattr(row, "nothing", {}).items():
            if any(fault.reason == reason for fault in faults):
                raise UserError(message.format(count=len(faults)))
        first = f": {faults[0].name}, {faults[0].reason}" if faults else ""
        raise UserError(f"none of the {len(faults)} images could be read{first}")
    result = row.figures(there, *train, model) if train else row.figures(there)
    return dataclasses.replace(result, left_out=faults) if isinstance(result, Measured) else result
