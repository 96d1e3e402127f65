"""`relevit evaluate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from relevit.errors import UserError
from relevit.models.named import load_named, named_models
from relevit.terminal import pick_device, stderr, stdout

if TYPE_CHECKING:
    from relevit.evaluation import Report

_EVERY: list[str] = []
_SHOWN = 20  # unreadable images named in the terminal; results.json names all


def evaluate(
    models: list[str],
    data: list[str],
    out: str | None = None,
    benchmarks: list[str] = _EVERY,
    protocol: Literal["standard", "paper"] = "standard",
    set_a: str | None = None,
    class_map: str | None = None,
    format: Literal["parquet", "csv"] = "parquet",
    batch_size: int = 64,
    workers: int = 0,
    device: str | None = None,
    precision: Literal["float32", "bf16", "fp16"] = "float32",
    progress: bool = True,
) -> None:
    """Measure one or several models on robustness benchmarks, side by side, in one pass over the images.

    R@1 and R@5 with intervals, expected calibration error, and the change against the first model. Of a folder made by `relevit compose`
    every set is measured, and the background gap is given: R@1 on mixed_same minus R@1 on mixed_rand. Images that cannot be read are counted
    and named. Started by torchrun or accelerate launch, the processes share the images: torchrun --nproc_per_node 2 -m relevit evaluate ...

    Args:
        models: one or several models, each a timm model's name, a run or checkpoint folder, a file of weights, builtin (the demo's), or
            ARCHITECTURE@FILE for a file that does not tell its architecture (vit_large_patch16_224@tuned.pth.tar); LABEL=MODEL gives it another name.
        data: one or several of these, a folder with benchmarks under their usual names, one benchmark, a folder of class folders
            (DIR/<class>/<image>), one made by `relevit compose`, a YAML file of names and paths, a data-set string of timm, or builtin for the built-in
            benchmark (builtin/SET for one of its sets).
        out: a folder for one row an image and all figures, in which the same call goes on and further models are added; or a JSON file for
            the figures alone (its name ends in .json).
        benchmarks: which of the benchmarks that were found to measure; imagenet-c stands for all of its sets. By default all.
        protocol: standard, each model's own preprocessing and each benchmark's own rules; or paper, as for the published figures (mean and std 0.5,
            short side 256, crop 224, all 1000 classes compete, first label).
        set_a: a file with a class a line, or a run's split.csv (its training classes); figures of these classes and of the rest are given apart.
        class_map: a JSON or CSV file from folder name to class index, where folders are named neither by wnid nor by class index.
        format: of the rows in --out.
        batch_size: images in one forward pass.
        workers: processes that read images; 0 reads in this one.
        device: where to run, such as cuda; by default the GPU if there is one.
        precision: of the forward pass; bf16 and fp16 by autocast.
        progress: shows a progress bar.
    """
    from relevit.evaluation import evaluate as measure
    from relevit.processes import Processes

    figures_only = out is not None and out.endswith(".json")
    if figures_only and Path(str(out)).exists():
        raise UserError(f"{out} is there already: give another --out, or remove it")
    named = named_models(models)
    main = int(os.environ.get("RANK", "0")) == 0
    sets = _sets(data, benchmarks, protocol, say=main)
    home = pick_device(device) if Processes(device).count == 1 else device
    report = measure(
        {label: load_named(model, protocol) for label, model in named.items()},
        sets,
        class_map=class_map,
        protocol=protocol,
        out=None if figures_only else out,
        format=format,
        set_a=set_a,
        batch_size=batch_size,
        workers=workers,
        device=home,
        precision=precision,
        progress=progress and sys.stderr.isatty(),
    )
    if not main:
        return
    stdout().print(report.table())
    _tell_unreadable(report)
    for reason in report.notes.get("unreadable", {}).values():
        stderr().print(f"no figures: {reason}", highlight=False, soft_wrap=True, markup=False)
    for name in report.notes.get("without_set_a", []):
        reason = f"{name} has no figures of set A: each of its kinds is of many classes"
        stderr().print(f"note: {reason}", highlight=False, soft_wrap=True, markup=False)
    if "imagenet-c" in report.notes:
        stderr().print(f"note: {report.notes['imagenet-c']}", highlight=False, soft_wrap=True, markup=False)
    if figures_only:
        report.save(str(out))
        stdout().print(f"figures of every class: {out}", highlight=False, soft_wrap=True)
    elif out is not None:
        told = f"figures of every class: {Path(out) / 'results.json'}; a row an image: {Path(out) / 'predictions'}"
        stdout().print(told, highlight=False, soft_wrap=True)


def _sets(data: Sequence[str], chosen: Sequence[str], protocol: str, say: bool) -> dict[str, Any]:
    """The benchmarks of all `data` by name, opened; and says what was found in folders of several, and what was not."""
    from relevit.evaluation.sources import resolve

    openers: dict[str, Any] = {}
    for each in data:
        resolved = resolve(each, protocol)
        twice = [name for name in resolved.openers if name in openers]
        if twice:
            raise UserError(
                f"there are two benchmarks called {twice[0]}, the second in {each}: give one of them as --data"
            )
        openers.update(resolved.openers)
        if say and resolved.discovery is not None:
            _tell_discovery(each, resolved.discovery)
    wanted = _chosen(list(openers), chosen) if chosen else list(openers)
    return {name: openers[name]() for name in wanted}


def _chosen(names: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """The names that are asked for; NAME stands for NAME/... as well."""
    unknown = [each for each in chosen if not any(name == each or name.startswith(f"{each}/") for name in names)]
    if unknown:
        raise UserError(f"there is no benchmark {unknown[0]} in --data; there are: {', '.join(names)}")
    return [name for name in names if any(name == each or name.startswith(f"{each}/") for each in chosen)]


def _tell_discovery(root: str, discovery: Any) -> None:
    """What was found below a folder, and what was not and why."""

    def tell(line: str) -> None:
        stdout().print(line, highlight=False, soft_wrap=True, markup=False)

    groups: dict[str, list[Any]] = {}
    for found in discovery.found:
        groups.setdefault(found.name.split("/")[0], []).append(found)
    tell(f"found in {root}:")
    for name, members in groups.items():
        several = f" ({len(members)} sets)" if len(members) > 1 or members[0].name != name else ""
        tell(f"  {name}{several}: {members[0].root}")
    absent = [name for name, reason in discovery.missing if reason.startswith("no folder has")]
    for name, reason in discovery.missing:
        if name not in absent:
            tell(f"  not {name}: {reason}")
    if absent:
        tell(f"  no folder of the usual names for: {', '.join(absent)}")


def _tell_unreadable(report: Report) -> None:
    for benchmark, left_out in report.unreadable.items():
        if left_out:
            stderr().print(
                f"{len(left_out)} images of {benchmark} could not be read and do not count:", highlight=False
            )
            for _, reason in left_out[:_SHOWN]:
                stderr().print(f"  {reason}", highlight=False, soft_wrap=True, markup=False)
            if len(left_out) > _SHOWN:
                stderr().print(f"  and {len(left_out) - _SHOWN} more", highlight=False)
