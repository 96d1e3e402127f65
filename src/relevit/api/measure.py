"""`relevit measure`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from relevit.errors import UserError
from relevit.models.named import load_named, named_models
from relevit.terminal import pick_device, stderr, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from relevit.statistics.estimate import Estimate

_SHOWN = 5  # images that do not count, named on the terminal


def measure(
    test: str,
    models: list[str],
    data: str,
    masks: str | None = None,
    ignore: str | None = None,
    train: str | None = None,
    benchmark: str | None = None,
    class_map: str | None = None,
    explainer: str | None = None,
    options: dict[str, Any] | None = None,
    out: str | None = None,
    limit: int | None = None,
    protocol: Literal["standard", "paper"] = "standard",
    batch_size: int = 16,
    workers: int = 0,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Run one test of relevance maps or of robustness on one or several models, side by side, with intervals.

    TEST is segmentation (pixel accuracy, mIoU and mAP of the maps, the paper's Table 3) or localization (share of relevance on the
    object, pointing game, coverage), on images with masks; perturbation, insertion_deletion or sufficient_subsets, on images; or knn,
    on frozen features. A wrong name lists them with what they measure.
    Intervals are 95%, of the bootstrap over images; models are compared with the first one on the same draws. Images that cannot be
    read are counted and named.

    Args:
        test: the test's name.
        models: one or several models, each named as for `relevit evaluate`; LABEL=MODEL gives one another name.
        data: images with masks (a folder, or gtsegs_ijcv.mat) for segmentation and localization; for the other tests class folders, a benchmark
            or a folder of them, or whatever else relevit evaluate takes; or builtin/SET, a test set of the built-in benchmark (or builtin/train).
        masks: masks of the same relative names, grey PNG; by default the images' alpha channel, or DIR/masks beside DIR/images.
        ignore: pictures of the same relative names, whose non-zero pixels count for neither side.
        train: class folders to train on, for tests that need them.
        benchmark: which of several sets in data is measured, such as imagenet-a.
        class_map: a JSON or CSV file from folder name to class index, where folders are named neither by wnid nor by class index.
        explainer: the explainer whose maps are measured; by default the test's own, gae.
        options: further options of the test, such as '{target: label}' or '{tolerance: 0}'; a wrong name lists them.
        out: a JSON file for the figures, with those of every image and class.
        limit: images at most, drawn by the seed.
        protocol: preprocessing, each model's own, with the rules of the standard protocol for benchmarks; or the paper's (mean and std 0.5,
            short side 256, crop 224), with those of the paper protocol (all classes compete, first label).
        batch_size: images in one pass.
        workers: threads or processes that read images; 0 reads in this one.
        seed: of all draws.
        device: where to run, such as cuda; by default the GPU if there is one.
        progress: shows a progress bar.
    """
    from rich.progress import Progress

    from relevit.data.sets import of_dataset
    from relevit.evaluation.measurements import measurement, open_data

    given: dict[str, Any] = dict(options or {})
    for name, value in (("explainer", explainer), ("class_map", class_map), ("workers", workers or None)):
        if value is not None and name in measurement(test).options:
            given[name] = value
        elif value is not None and name == "explainer":
            raise UserError(f"{test} measures no relevance maps: leave out --explainer")
    row = measurement(test, given)
    if out is not None and Path(out).exists():
        raise UserError(f"{out} is there already: give another --out, or remove it")
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be a number of images from 1, not {limit}")
    named = named_models(models)
    home = pick_device(device)
    loaded = {name: load_named(model, protocol, home) for name, model in named.items()}
    found: dict[str, Any] = {}
    inputs: dict[str, Any] = {"masks": masks, "ignore": ignore, "train": train, "benchmark": benchmark}
    sources = {
        name: open_data(row, data, model=net, class_map=class_map, protocol=protocol, **inputs)
        for name, (net, _) in loaded.items()
    }
    with Progress(transient=True, console=stderr(), disable=not (progress and sys.stderr.isatty())) as bar:
        for name, (net, view) in loaded.items():
            source, extra = sources[name]
            source = of_dataset(source).limited(limit, seed)
            task = bar.add_task(name, total=len(source))
            found[name] = row.function(
                net,
                view,
                source,
                batch_size=batch_size,
                seed=seed,
                progress=lambda count, task=task: bar.advance(task, count),
                **extra,
                **given,
            )
    ends, apart = _compared(found, seed)
    stdout().print(_table(f"{test} on {data}, protocol: {protocol}", found, ends, apart))
    stdout().print(f"{test}: {row.description}", highlight=False, soft_wrap=True)
    _tell_left_out(found)
    if out is not None:
        from relevit.files import atomic_write

        content = {
            "test": test,
            "data": data,
            **({} if benchmark is None else {"benchmark": benchmark}),
            "protocol": protocol,
            "options": {**given, "seed": seed, "limit": limit},
            "models": {
                name: {
                    **result.to_dict(),
                    "intervals": {key: [_rounded(end) for end in figure.ends] for key, figure in ends[name].items()},
                    "minus_first": {
                        key: {"value": _rounded(change.value), "interval": [_rounded(end) for end in change.ends]}
                        for key, change in apart[name].items()
                    },
                }
                for name, result in found.items()
            },
            "versions": _versions(),
        }
        atomic_write(out, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        stdout().print(f"figures of every image: {out}", highlight=False, soft_wrap=True)


def _compared(
    found: dict[str, Any], seed: int
) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[str, Estimate]]]:
    """Of each model the interval of every figure, and every figure's difference to the first model's; empty for results that
    cannot be drawn anew."""
    from relevit.statistics.weighted import differences, intervals

    first = next(iter(found.values()))
    ends = {name: intervals(each, seed=seed) if hasattr(each, "figures") else {} for name, each in found.items()}
    apart = {
        name: differences(each, first, seed=seed) if each is not first and hasattr(each, "figures") else {}
        for name, each in found.items()
    }
    return ends, apart


def _table(title: str, found: dict[str, Any], ends: dict[str, Any], apart: dict[str, Any]) -> Table:
    """A row for each figure and model."""
    from rich.table import Table

    first = next(iter(found))
    table = Table(title=f"{title} (95% intervals)", title_justify="left")
    table.add_column("figure")
    table.add_column("model", overflow="fold")
    table.add_column("value", justify="right")
    if len(found) > 1:
        table.add_column(f"minus {first}", justify="right")
    values = {name: dict(result) for name, result in found.items()}
    for figure in values[first]:
        for number, name in enumerate(found):
            if figure not in values[name]:
                continue
            difference = apart[name].get(figure)
            cells = [_cell(values[name][figure], ends[name].get(figure))]
            if len(found) > 1:
                cells.append("" if difference is None else _cell(difference.value, difference, "+"))
            table.add_row(figure if number == 0 else "", name, *cells)
        if len(found) > 1:
            table.add_section()
    return table


def _cell(value: float, interval: Estimate | None, sign: str = "") -> str:
    ends = "" if interval is None else f" ({_short(interval.low, sign)} to {_short(interval.high, sign)})"
    return f"{_short(value, sign)}{ends}"


def _short(value: float, sign: str) -> str:
    """Two decimals, as percentages need no more; without the sign of a zero."""
    return f"{round(value, 2) + 0.0:{sign}.5g}"


def _tell_left_out(found: dict[str, Any]) -> None:
    """Which images do not count, on standard error."""
    for name, result in found.items():
        left_out = [tuple(each) for each in getattr(result, "left_out", ())]
        if not left_out:
            continue
        stderr().print(f"{name}: {len(left_out)} images do not count:", highlight=False, markup=False, soft_wrap=True)
        for image, reason in left_out[:_SHOWN]:
            stderr().print(f"  {image}: {reason}", highlight=False, markup=False, soft_wrap=True)
        if len(left_out) > _SHOWN:
            stderr().print(f"  ... and {len(left_out) - _SHOWN} more; --out FILE names all", highlight=False)


def _rounded(value: float) -> float | None:
    return round(value, 6) if value == value and abs(value) != float("inf") else None


def _versions() -> dict[str, str]:
    import timm
    import torch

    return {"torch": torch.__version__, "timm": timm.__version__}
