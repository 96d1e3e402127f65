"""`relevit evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from relevit import terminal
from relevit.api import types
from relevit.api.types import public
from relevit.errors import UserError

if TYPE_CHECKING:
    from relevit.evaluation import Report

_SHOWN = 20  # unreadable images named in the terminal; results.json names all


@public
def evaluate(
    model: types.Models,
    benchmark: types.Benchmarks,
    *,
    out: types.Output | None = None,
    benchmarks: types.Names = (),
    protocol: types.Protocol = "standard",
    transform: Annotated[Callable[..., Any] | None, types.PythonOnly] = None,
    set_a: types.ClassSet | None = None,
    class_map: types.ClassMap | None = None,
    format: Literal["parquet", "csv"] = "parquet",
    batch_size: types.Count = 64,
    workers: types.Index = 0,
    device: types.Device = None,
    precision: types.Precision = "float32",
    progress: bool = True,
) -> Report:
    """Measure one or several models on robustness benchmarks, side by side, in one pass over the images.

    R@1 and R@5 with intervals, expected calibration error, and the change against the first model. Of a folder made by `relevit compose`
    every set is measured, and the background gap is given: R@1 on mixed_same minus R@1 on mixed_rand. Images that cannot be read are counted
    and named. Started by torchrun or accelerate launch, the processes share the images: torchrun --nproc_per_node 2 -m relevit evaluate ...

    Args:
        model: one or several models, each a timm model's name, a run or checkpoint folder, a file of weights, builtin (the demo's), or
            ARCHITECTURE@FILE for a file that does not tell its architecture (vit_large_patch16_224@tuned.pth.tar); LABEL=MODEL gives it another name.
        benchmark: one or several of these, a folder with benchmarks under their usual names, one benchmark, a folder of class folders
            (DIR/<class>/<image>), one made by `relevit compose`, a YAML file of names and paths, a data-set string of timm, or builtin for the built-in
            benchmark (builtin/SET for one of its sets). In Python also a data set of (image, class index), and a dictionary by name.
        out: a folder for one row an image and all figures, in which the same call goes on and further models are added; or a JSON file for
            the figures alone (its name ends in .json).
        benchmarks: which of the benchmarks that were found to measure; imagenet-c stands for all of its sets. By default all.
        protocol: standard, each model's own preprocessing and each benchmark's own rules; or paper, as for the published figures (mean and std 0.5,
            short side 256, crop 224, all 1000 classes compete, first label).
        transform: preprocessing of modules, in place of the one that belongs to them.
        set_a: a file with a class a line, or a run's split.csv (its training classes); figures of these classes and of the rest are given apart.
        format: of the rows in --out.

    Returns:
        A `Report`: figures and rows of every model on every benchmark. Models are left as they were.

    Raises:
        UserError: a folder without images, a folder name that is no class of a model, a label outside a model's classes, no
            readable image at all, a full disk, or an `out` with results of other weights, images or settings.
    """
    from relevit.evaluation.run import evaluate as run
    from relevit.folders import check_new_file
    from relevit.models.loading import labelled, load
    from relevit.processes import Processes, is_first, pick_device

    figures_only = out is not None and str(out).endswith(".json")
    if figures_only:
        check_new_file(str(out))
    named = labelled(model)
    sets = _sets([benchmark] if isinstance(benchmark, str | Path) else benchmark, benchmarks, protocol)
    by_name = all(isinstance(each, str | Path) for each in named.values())
    alone = Processes(device).count == 1
    models: dict[str, Any] = {
        label: load(each, protocol=protocol) if isinstance(each, str | Path) else each for label, each in named.items()
    }
    report = run(
        models,
        sets,
        transform=transform,
        class_map=class_map,
        protocol=protocol,
        out=None if figures_only else out,
        format=format,
        set_a=set_a,
        batch_size=batch_size,
        workers=workers,
        device=pick_device(device) if alone and (by_name or device is not None) else device,
        precision=precision,
    )
    if figures_only and is_first():
        report.save(str(out))
    return report


def show(report: Report, given: Mapping[str, Any]) -> None:
    """The table of figures, what could not be read, and where the figures lie."""
    terminal.show(report.table())
    for benchmark, left_out in report.unreadable.items():
        if left_out:
            more = [f"  and {len(left_out) - _SHOWN} more"] if len(left_out) > _SHOWN else []
            reasons = [f"  {reason}" for _, reason in left_out[:_SHOWN]]
            terminal.remark(
                f"{len(left_out)} images of {benchmark} could not be read and do not count:", *reasons, *more
            )
    terminal.remark(*(f"no figures: {reason}" for reason in report.notes.get("unreadable", {}).values()))
    for name in report.notes.get("without_set_a", []):
        terminal.remark(f"note: {name} has no figures of set A: each of its kinds is of many classes")
    if "imagenet-c" in report.notes:
        terminal.remark(f"note: {report.notes['imagenet-c']}")
    out = given["out"]
    if out is not None and str(out).endswith(".json"):
        terminal.show(f"figures of every class: {out}")
    elif out is not None:
        figures, rows = Path(out) / "results.json", Path(out) / "predictions"
        terminal.show(f"figures of every class: {figures}; a row an image: {rows}")


def _sets(data: Any, chosen: Sequence[str], protocol: str) -> Any:
    """The benchmarks of a list by name, opened; tells what was found in folders of several, and what was not. Anything else
    as it is."""
    from relevit.data.open import sets

    if not (isinstance(data, list) and all(isinstance(spec, str | Path) for spec in data)):
        return data
    openers: dict[str, Any] = {}
    for spec in data:
        found = sets(spec, protocol=protocol)
        twice = [name for name in found if name in openers]
        if twice:
            raise UserError(
                f"there are two benchmarks called {twice[0]}, the second in {spec}: give one of them as --data"
            )
        openers.update(found)
        if found.discovery is not None:
            _tell_discovery(spec, found.discovery)
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
    groups: dict[str, list[Any]] = {}
    for place in discovery.found:
        groups.setdefault(place.name.split("/")[0], []).append(place)
    terminal.tell(f"found in {root}:")
    for name, members in groups.items():
        several = f" ({len(members)} sets)" if len(members) > 1 or members[0].name != name else ""
        terminal.tell(f"  {name}{several}: {members[0].root}")
    absent = [name for name, reason in discovery.missing if reason.startswith("no folder has")]
    terminal.tell(*(f"  not {name}: {reason}" for name, reason in discovery.missing if name not in absent))
    if absent:
        terminal.tell(f"  no folder of the usual names for: {', '.join(absent)}")
