"""`relevit measure`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from relevit import terminal
from relevit.api import types
from relevit.api.types import public
from relevit.errors import UserError
from relevit.versions import libraries

if TYPE_CHECKING:
    from relevit.report.table import Table
    from relevit.statistics.estimate import Estimate

_SHOWN = 5  # images that do not count, named on the terminal


class Measured(NamedTuple):
    """Of each model the result, the interval of every figure, and every figure's difference to the first model's with its
    interval (empty for results that cannot be drawn anew); and what the test measures."""

    results: dict[str, Any]
    intervals: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Estimate]]
    description: str


@public
def measure(
    test: str,
    models: types.Models,
    *,
    data: types.DataSet,
    masks: types.Folder | None = None,
    ignore: types.Folder | None = None,
    train: types.DataSet | None = None,
    benchmark: types.Name | None = None,
    class_map: types.ClassMap | None = None,
    explainer: types.Name | None = None,
    options: types.Options = None,
    out: types.Output | None = None,
    limit: types.Count | None = None,
    protocol: types.Protocol = "standard",
    batch_size: types.Count = 16,
    workers: types.Index = 0,
    seed: types.Index = 0,
    device: types.Device = None,
    progress: bool = True,
) -> Measured:
    """Run one test of relevance maps or of robustness on one or several models, side by side, with intervals.

    TEST is segmentation (pixel accuracy, mIoU and mAP of the maps, the paper's Table 3) or localization (share of relevance on the
    object, pointing game, coverage), on images with masks; perturbation, insertion_deletion or sufficient_subsets, on images; or knn,
    on frozen features. A wrong name lists them with what they measure. Started by torchrun or accelerate launch, the processes share the
    images: torchrun --nproc_per_node 2 -m relevit measure ...
    Intervals are 95%, of the bootstrap over images; models are compared with the first one on the same draws. Images that cannot be
    read are counted and named.

    Args:
        test: the test's name.
        models: one or several models, each named as for `relevit evaluate`; LABEL=MODEL gives one another name.
        data: images with masks (a folder, or gtsegs_ijcv.mat) for segmentation and localization; for the other tests class folders, a benchmark
            or a folder of them, or whatever else relevit evaluate takes; or builtin/SET, a test set of the built-in benchmark (or builtin/train). In Python also a data set.
        masks: masks of the same relative names, grey PNG; by default the images' alpha channel, or DIR/masks beside DIR/images.
        ignore: pictures of the same relative names, whose non-zero pixels count for neither side.
        train: class folders to train on, for tests that need them.
        benchmark: which of several sets in data is measured, such as imagenet-a.
        explainer: the explainer whose maps are measured; by default the test's own, gae.
        options: further options of the test, such as '{target: label}' or '{tolerance: 0}'; a wrong name lists them.
        out: a folder for one row an image and all figures, in which the same call goes on and further models are added; or a JSON file for
            the figures alone (its name ends in .json).
        limit: images at most, drawn by the seed.
        protocol: preprocessing, each model's own, with the rules of the standard protocol for benchmarks; or the paper's (mean and std 0.5,
            short side 256, crop 224), with those of the paper protocol (all classes compete, first label).

    Returns:
        The results of all models, with intervals and differences.
    """
    from relevit.evaluation.measurements import measure as run
    from relevit.evaluation.measurements import measurement, open_data, options_of
    from relevit.files import atomic_write
    from relevit.folders import check_new_file
    from relevit.models.loading import load_several
    from relevit.processes import Processes, pick_device

    chosen: dict[str, Any] = dict(options or {})
    for name, value in (("explainer", explainer), ("class_map", class_map)):
        if value is not None and name in options_of(measurement(test)):
            chosen[name] = value
        elif value is not None and name == "explainer":
            raise UserError(f"{test} measures no relevance maps: leave out --explainer")
    row = measurement(test, chosen)
    figures_only = out is not None and str(out).endswith(".json")
    if out is not None and figures_only:
        check_new_file(out)
    team = Processes(device)
    loaded = load_several(models, protocol, pick_device(device) if team.count == 1 else str(team.device))
    inputs: dict[str, Any] = {"masks": masks, "ignore": ignore, "train": train, "benchmark": benchmark}
    source, bank = open_data(row.needs, data, protocol=protocol, **inputs)
    settings = {"protocol": protocol, "limit": limit, **{k: types.told(v) for k, v in inputs.items() if v is not None}}
    about = {
        "test": test,
        "data": types.told(data),
        **({} if benchmark is None else {"benchmark": benchmark}),
        "protocol": protocol,
        "options": {**chosen, "seed": seed, "limit": limit},
    }
    results = run(
        test,
        loaded,
        source.limited(limit, seed),
        name=types.told(data) if benchmark is None else f"{types.told(data)}/{benchmark}",
        train=bank,
        out=None if figures_only else out,
        told=settings,
        device=team.device,
        batch_size=batch_size,
        workers=workers,
        options={**chosen, "seed": seed},
        report=lambda found: _as_text(_compared(found, seed, row.description), about),
    )
    measured = _compared(results, seed, row.description)
    if out is not None and figures_only and team.is_main:
        atomic_write(out, _as_text(measured, about))
    return measured


def _compared(results: Mapping[str, Any], seed: int, description: str) -> Measured:
    """The intervals of every model's figures, and their differences to the first one's."""
    from relevit.statistics.weighted import differences, intervals

    first = next(iter(results.values()))
    drawn = {name: result for name, result in results.items() if hasattr(result, "figures")}
    return Measured(
        dict(results),
        {name: intervals(drawn[name], seed=seed) if name in drawn else {} for name in results},
        {
            name: differences(result, first, seed=seed) if name in drawn and result is not first else {}
            for name, result in results.items()
        },
        description,
    )


def _as_text(measured: Measured, about: Mapping[str, Any]) -> str:
    """The figures of all models as JSON."""
    content = {
        **about,
        "models": {name: _as_json(measured, name) for name in measured.results},
        "versions": libraries(),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _as_json(measured: Measured, name: str) -> dict[str, Any]:
    """The figures of one model."""
    return {
        **measured.results[name].to_dict(),
        "intervals": {key: [_rounded(end) for end in figure.ends] for key, figure in measured.intervals[name].items()},
        "minus_first": {
            key: {"value": _rounded(change.value), "interval": [_rounded(end) for end in change.ends]}
            for key, change in measured.differences[name].items()
        },
    }


def show(measured: Measured, given: Mapping[str, Any]) -> None:
    """The table of figures, and which images do not count."""
    test, out = given["test"], given["out"]
    title = f"{test} on {types.told(given['data'])}, protocol: {given['protocol']} (95% intervals)"
    terminal.show(_table(title, measured), f"{test}: {measured.description}")
    for name, result in measured.results.items():
        left_out = [(fault.name, fault.reason) for fault in getattr(result, "left_out", ())]
        if left_out:
            terminal.remark(f"{name}: {len(left_out)} images do not count:")
            terminal.remark(*(f"  {image}: {reason}" for image, reason in left_out[:_SHOWN]))
        if len(left_out) > _SHOWN:
            terminal.remark(f"  ... and {len(left_out) - _SHOWN} more; --out FILE names all")
    if out is not None:
        place = out if str(out).endswith(".json") else f"{out}/results.json"
        terminal.show(f"figures of every image: {place}")


def _table(title: str, measured: Measured) -> Table:
    """A row for each figure and model."""
    from relevit.report.table import Table

    first, *others = measured.results
    values = {name: dict(result) for name, result in measured.results.items()}
    rows: list[tuple[str, ...] | None] = []
    for figure in values[first]:
        for number, name in enumerate(values):
            if figure not in values[name]:
                continue
            change = measured.differences[name].get(figure)
            apart = ["" if change is None else _cell(change.value, change, "+")] if others else []
            value = _cell(values[name][figure], measured.intervals[name].get(figure))
            rows.append((figure if number == 0 else "", name, value, *apart))
        rows += [None] if others else []
    columns = ("figure", "model", "value", *([f"minus {first}"] if others else []))
    return Table(title, columns, rows, left=(0, 1))


def _cell(value: float, interval: Estimate | None, sign: str = "") -> str:
    ends = "" if interval is None else f" ({_short(interval.low, sign)} to {_short(interval.high, sign)})"
    return f"{_short(value, sign)}{ends}"


def _short(value: float, sign: str) -> str:
    """Two decimals, as percentages need no more; without the sign of a zero."""
    return f"{round(value, 2) + 0.0:{sign}.5g}"


def _rounded(value: float) -> float | None:
    return round(value, 6) if value == value and abs(value) != float("inf") else None
