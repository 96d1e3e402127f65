"""`evaluate`: one or several models over one or several benchmarks, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import nn

from relevit.data.benchmarks.backgrounds_challenge import NAME as BACKGROUNDS_CHALLENGE
from relevit.errors import UserError
from relevit.evaluation.accuracy.class_sets import ClassSet, classes_of, in_set, indices_of, read_class_set
from relevit.evaluation.accuracy.predictions import FORMATS, Format, Predictions, concatenate
from relevit.evaluation.engine import (
    PRECISIONS,
    Runner,
    Target,
    Transform,
    measure,
    measure_stream,
)
from relevit.evaluation.folder import RESULTS, ResultsFolder
from relevit.evaluation.identity import digest_of, settings_of, told_settings
from relevit.evaluation.shards import shard_ranges
from relevit.evaluation.sources import Source, open_sources
from relevit.evaluation.summary import Report, Rows, summarise
from relevit.models.loading import data_config, load
from relevit.models.view import evaluation_view
from relevit.models.working import working
from relevit.processes import Processes

Model = nn.Module | tuple[nn.Module, Transform] | str | Path
Benchmark = str | Path | Any  # a folder, or anything with __len__ and __getitem__
Protocol = Literal["standard", "paper"]
PROTOCOLS = ("standard", "paper")


def evaluate(
    model: Model | Mapping[str, Model],
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
    progress: bool = False,
) -> Report:
    """Accuracy of one or several models, each with its own preprocessing, in one pass over the images; and against the first.

    Args:
        model: an `nn.Module`, what `relevit.load` returns, or a name for `relevit.load`; or a dictionary of these by name.
        benchmark: a folder of class folders, one made by `relevit compose`, or a dataset; or a dictionary of these by name. A dataset has `__len__` and
            `__getitem__`, and gives pairs (image, class index) or samples with `.image` and `.label`; an image is a PIL image, a
            uint8 array (height, width, 3), or a float tensor (3, height, width) that is used as it is.
        transform: preprocessing of modules given without one; by default the evaluation view of the model's own data config.
        class_map: for folders whose names are neither wnids nor class indices: a mapping, or a JSON or CSV file, from folder name
            to class index.
        protocol: "standard", the model's own preprocessing and the benchmarks' own rules; or "paper", that of the published
            figures: mean and std 0.5, short side 256, centre crop 224 for every model, also one given with a transform.
        out: a folder for the rows, one an image (see predictions.py), and the figures (results.json). The same call does only
            what is missing there: it goes on after an interruption, and of a further model or benchmark that alone is done.
        format: of the rows, "parquet" or "csv".
        set_a: classes whose figures are given apart from the rest: names, a file of names, or a run's split.csv (its training
            classes).
        batch_size: images in a batch.
        workers: processes that read images; 0 reads in this one.
        device: where to run; by default where the model is.
        precision: "float32", or "bf16" or "fp16" by autocast.
        progress: shows a progress bar.

    Started by `torchrun` or `accelerate launch`, the processes share the shards; all must make the same call, and each
    returns the whole report.

    Returns:
        A `Report`. Models are left as they were (training mode, device).

    Raises:
        UserError: a folder without images, a folder name that is no class of a model, a label outside a model's classes, no
            readable image at all, a full disk, or an `out` with results of other weights, images or settings.
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
    sources = open_sources(benchmark, protocol)
    runners = [_runner(name, each, transform, protocol) for name, each in _named(model).items()]
    if not runners:
        raise UserError("there is no model to evaluate")
    # What can be wrong is found before any long work.
    answers = _check_classes(sources, runners, class_map)
    in_set_a = None if chosen is None else _set_a(chosen, sources, runners, class_map)
    folder = (
        None if out is None else ResultsFolder(out, settings_of(sources, runners, answers, protocol, precision, format))
    )
    if folder is not None:
        folder.check()
        team.wait()  # all have looked at the folder as it was
        if team.is_main:
            folder.begin()

    predictions: dict[str, Rows] = {}
    with ExitStack() as stack:
        for runner in runners:
            stack.enter_context(working(runner.net, team.device))
        bar = stack.enter_context(_progress(progress and team.is_main))
        for name, source in sources.items():
            predictions[name] = _benchmark(
                source, runners, class_map, folder, team, bar, batch_size, workers, precision
            )
    notes: dict[str, dict[str, Any]] = (
        {"settings": {"precision": precision}}
        if folder is None
        else {"settings": told_settings(folder, sources, runners)}
    )
    if chosen is not None:
        notes["settings"]["set_a"] = chosen
    report = summarise(predictions, protocol, in_set_a, notes)
    if folder is not None and team.is_main:
        report.save(folder.out / RESULTS)
    team.wait()
    return report


def _benchmark(
    source: Source,
    runners: Sequence[Runner],
    class_map: Any,
    folder: ResultsFolder | None,
    team: Processes,
    bar: Callable[[str, int | None, int], Callable[[int], object]],
    batch_size: int,
    workers: int,
    precision: str,
) -> Rows:
    """The rows of all models on one benchmark: what is missing is done, shared among the processes."""
    names = [runner.name for runner in runners]
    if source.is_stream:
        return _stream(source, runners, folder, team, bar, batch_size, precision)
    ranges = shard_ranges(source.length)
    todo = {shard: names for shard in range(len(ranges))}
    if folder is not None:
        todo = team.of_main(folder.missing(source.name, names, len(ranges)))
    mine = dict(list(todo.items())[team.rank :: team.count])
    kept: dict[int, dict[str, Predictions]] = {}
    if mine:
        targets = {runner.name: _target(source, runner, class_map) for runner in runners}
        advance = bar(source.name, source.length, source.length - sum(len(ranges[shard]) for shard in todo))
        together = partial(_times, advance, team.count)
        done = measure(
            source,
            runners,
            targets,
            mine,
            batch_size=batch_size,
            workers=workers,
            precision=precision,
            advance=together,
        )
        with closing(done):  # workers end, too, when a disk is full
            for shard, rows in done:
                if folder is None:
                    kept[shard] = rows
                else:
                    for model, part in rows.items():
                        folder.write(source.name, model, shard, len(ranges), part)
    team.wait()
    return _rows(source, names, folder, team, kept)


def _stream(
    source: Source,
    runners: Sequence[Runner],
    folder: ResultsFolder | None,
    team: Processes,
    bar: Callable[[str, int | None, int], Callable[[int], object]],
    batch_size: int,
    precision: str,
) -> Rows:
    """As `_benchmark` of a set that every process reads from beginning to end, to do its own shards of it."""
    names = [runner.name for runner in runners]
    done: dict[str, set[int]] = {name: set() for name in names}
    count: int | None = None
    if folder is not None:
        done, count = team.of_main(folder.missing_of_stream(source.name, names))
    kept: dict[int, dict[str, Predictions]] = {}
    if count is None or any(len(shards) < count for shards in done.values()):

        def wanted(shard: int) -> list[str]:
            mine = shard % team.count == team.rank
            return [name for name in names if shard not in done[name]] if mine else []

        targets = {runner.name: Target(None, source.candidates(runner.net)) for runner in runners}
        advance, last = bar(source.name, source.length or None, 0), -1
        shards = measure_stream(
            source, runners, targets, wanted, batch_size=batch_size, precision=precision, advance=advance
        )
        for shard, rows in shards:
            last = shard
            if folder is None:
                kept.update({shard: rows} if rows else {})
            else:
                for model, part in rows.items():
                    folder.write(source.name, model, shard, None, part)
        if last < 0:
            raise UserError(f"{source.name} holds no images")
        team.wait()
        if folder is not None and team.is_main:
            folder.close_stream(source.name, names, last + 1)
    team.wait()
    return _rows(source, names, folder, team, kept)


def _rows(
    source: Source,
    names: Sequence[str],
    folder: ResultsFolder | None,
    team: Processes,
    kept: Mapping[int, Mapping[str, Predictions]],
) -> Rows:
    """What all processes have done: on the disk, or in the memory of each."""
    if folder is not None:
        return Rows({name: partial(folder.read, source.name, name) for name in names})
    everything = dict(pair for pairs in team.gathered([list(kept.items())]) for pair in pairs)
    whole = {name: concatenate([everything[shard][name] for shard in sorted(everything)]) for name in names}
    return Rows({name: partial(_same, rows) for name, rows in whole.items()})


def _same(rows: Predictions) -> Predictions:
    return rows


def _times(advance: Callable[[int], object], factor: int, count: int) -> None:
    """The main process's bar stands for all processes, which are about as quick."""
    advance(count * factor)


def _named(model: Any) -> dict[str, Any]:
    """A single model as a dictionary of one."""
    if isinstance(model, Mapping):
        return {str(name): each for name, each in model.items()}
    return {str(model) if isinstance(model, str | Path) else "model": model}


def _runner(name: str, model: Model, transform: Transform | None, protocol: str) -> Runner:
    """Under the protocol "paper" every model gets its view, also one that came with another."""
    if isinstance(model, str | Path):
        return Runner(name, *load(str(model), protocol=protocol))
    net, view = model if isinstance(model, tuple) else (model, transform)
    if protocol == "paper":
        return Runner(name, net, evaluation_view(data_config(net, "paper")))
    return Runner(name, net, view or evaluation_view(data_config(net)))


def _target(source: Source, runner: Runner, class_map: Any) -> Target:
    return Target(source.answers(runner.net, class_map), source.candidates(runner.net))


def _check_classes(
    sources: Mapping[str, Source], runners: Sequence[Runner], class_map: Any
) -> dict[str, dict[str, str]]:
    """Benchmark -> model -> what tells its right answers from others. Raise UserError with all benchmarks whose classes a model
    does not have."""
    faults: dict[str, list[str]] = {}
    found: dict[str, dict[str, str]] = {name: {} for name in sources}
    for name, source in sources.items():
        for runner in runners:
            try:
                answers = _target(source, runner, class_map).answers
                if answers is not None:
                    found[name][runner.name] = digest_of(answers)
            except UserError as error:
                faults.setdefault(str(error), []).append(f"{runner.name} on {source.name}")
    if len(faults) == 1:
        ((reason, where),) = faults.items()
        raise UserError(f"{where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {reason}")
    if faults:
        lines = [f"{', '.join(where)}: {reason}" for reason, where in faults.items()]
        raise UserError("\n".join([f"{len(faults)} reasons why models and benchmarks do not go together:", *lines]))
    return found


def _set_a(
    chosen: Sequence[str], sources: Mapping[str, Source], runners: Sequence[Runner], class_map: Any
) -> Callable[[str, str, Predictions], Bool[np.ndarray, " images"] | None]:
    """Tells of rows whether they are of set A; None where each group stands for many classes, as in the Backgrounds Challenge,
    and none of them is named. Raises UserError for a name that nobody knows."""
    indices = {runner.name: indices_of(chosen, runner.net, class_map) for runner in runners}
    folders = {str(each) for source in sources.values() for each in getattr(source.data, "class_names", ())}
    unknown = [name for name in chosen if name not in folders and not any(name in known for known in indices.values())]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(f"set A names {unknown[0]}{more}, which is no class of a benchmark or a model")

    nets = {runner.name: runner.net for runner in runners}

    def inside(benchmark: str, model: str, rows: Predictions) -> Bool[np.ndarray, " images"] | None:
        kind = str(getattr(sources[benchmark].data, "name", "")).split("/")[0]
        if kind == BACKGROUNDS_CHALLENGE and not set(chosen) & set(rows.groups.tolist()):
            return None
        classes = classes_of(sorted(set(rows.groups.tolist())), nets[model], class_map)
        return in_set(rows, chosen, indices[model].values(), classes)

    return inside


def _check(**arguments: tuple[str, Sequence[str]]) -> None:
    for name, (value, allowed) in arguments.items():
        if value not in allowed:
            raise UserError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


@contextmanager
def _progress(enabled: bool) -> Any:
    """Yields a function (benchmark, images, done) -> function that is told of further images."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True, console=Console(stderr=True), disable=not enabled) as bar:

        def begin(name: str, total: int | None, done: int) -> Callable[[int], object]:
            task = bar.add_task(name, total=total, completed=done, rate="")

            def advance(count: int) -> None:
                bar.advance(task, count)
                speed = bar._tasks[task].speed
                bar.update(task, rate="" if speed is None else f"{speed:,.0f} images/s")

            return advance

        yield begin
