"""One pass over the images of each set for all models and one measurement: in shards, resumed, shared among processes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import torch

from relevit.errors import UserError
from relevit.evaluation.batches import Advance, Shard, batches, distinct, stream_batches
from relevit.evaluation.folder import RowsFolder
from relevit.evaluation.measurement import LoadedModel, Measurement, Work
from relevit.evaluation.rows import Part, Rows, table_of
from relevit.evaluation.shards import shard_ranges
from relevit.evaluation.sources import Measurable
from relevit.models.working import device_of, working
from relevit.processes import Processes
from relevit.terminal import progress

Works = Mapping[str, Mapping[str, Work]]  # set -> model -> what is to be done


def prepare(models: Sequence[LoadedModel], sets: Mapping[str, Measurable], measurement: Measurement) -> Works:
    """Everything that can be wrong is found here, before any long work. Raises UserError with all models and sets that do not
    go together."""
    faults: dict[str, list[str]] = {}
    works: dict[str, dict[str, Work]] = {name: {} for name in sets}
    for name, images in sets.items():
        for model in models:
            try:
                works[name][model.name] = measurement.begin(model, images)
            except UserError as error:
                faults.setdefault(str(error), []).append(f"{model.name} on {images.name}")
    if len(faults) == 1:
        ((reason, where),) = faults.items()
        raise UserError(f"{where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {reason}")
    if faults:
        lines = [f"{', '.join(where)}: {reason}" for reason, where in faults.items()]
        raise UserError("\n".join([f"{len(faults)} reasons why models and benchmarks do not go together:", *lines]))
    return works


def truths(works: Works) -> dict[str, dict[str, str]]:
    """Set -> model -> what tells its right answers from others."""
    return {
        name: {model: work.truth for model, work in models.items() if work.truth is not None}
        for name, models in works.items()
    }


@dataclass(frozen=True)
class Run:
    """What is the same for all sets of a run: see `run`."""

    models: Sequence[LoadedModel]
    measurement: Measurement
    folder: RowsFolder | None
    team: Processes
    batch_size: int
    workers: int

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return [model.name for model in self.models]


def run(
    models: Sequence[LoadedModel],
    sets: Mapping[str, Measurable],
    measurement: Measurement,
    works: Works,
    *,
    folder: RowsFolder | None = None,
    team: Processes | None = None,
    batch_size: int = 16,
    workers: int = 0,
) -> dict[str, Rows]:
    """The rows of all models on every set: what is missing is done, shared among the processes.

    Args:
        models, sets: each set is read once for all models.
        measurement: what is measured.
        works: from `prepare`.
        folder: which is held; keeps the rows and knows those that are done; without it they are in memory.
        team: the processes that share the work, all of which must make the same call; where models run.
        batch_size: images in a batch.
        workers: processes that read images; 0 reads in this one.

    Returns:
        Set -> model -> table, read when it is asked for.
    """
    team = team or Processes()
    settings = Run(models, measurement, folder, team, batch_size, workers)
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(working(model.net, team.device))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        return {
            name: (_stream if images.is_stream else _indexed)(settings, images, works[name])
            for name, images in sets.items()
        }


def _indexed(run: Run, images: Measurable, works: Mapping[str, Work]) -> Rows:
    ranges = shard_ranges(images.length)
    todo = {shard: run.names for shard in range(len(ranges))}
    if run.folder is not None:
        todo = run.team.of_main(run.folder.missing(images.name, run.names, len(ranges)))
    mine = dict(list(todo.items())[run.team.rank :: run.team.count])
    kept: dict[int, dict[str, pa.Table]] = {}
    if mine:
        done = images.length - sum(len(ranges[shard]) for shard in todo)
        framings, wanted = _framings(run)
        numbers = {shard: {n for name in names for n in wanted[name]} for shard, names in mine.items()}
        pin = any(device_of(model.net).type == "cuda" for model in run.models)
        shards = batches(images, framings, numbers, batch_size=run.batch_size, workers=run.workers, pin=pin)
        with closing(shards), progress(images.name, images.length, done) as advance:  # workers end on a full disk, too
            # The main process's bar stands for all processes, which are about as quick.
            together = partial(_times, advance, run.team.count)
            for shard, tables in _measured(run, shards, works, wanted, mine.__getitem__, together):
                _keep(run, images, shard, len(ranges), tables, kept)
    run.team.wait()
    return _rows(run, images, kept)


def _stream(run: Run, images: Measurable, works: Mapping[str, Work]) -> Rows:
    """A set that every process reads from beginning to end, to do its own shards of it."""
    done: dict[str, set[int]] = {name: set() for name in run.names}
    count: int | None = None
    if run.folder is not None:
        done, count = run.team.of_main(run.folder.missing_of_stream(images.name, run.names))
    kept: dict[int, dict[str, pa.Table]] = {}
    if count is None or any(len(shards) < count for shards in done.values()):

        def lacking(shard: int) -> list[str]:
            mine = shard % run.team.count == run.team.rank
            return [name for name in run.names if shard not in done[name]] if mine else []

        framings, wanted = _framings(run)
        last = -1
        with progress(images.name, images.length or None) as advance:
            shards = stream_batches(
                images,
                framings,
                lambda shard: {n for name in lacking(shard) for n in wanted[name]},
                advance,
                batch_size=run.batch_size,
            )
            for last, tables in _measured(run, shards, works, wanted, lacking, advance):
                _keep(run, images, last, None, tables, kept)
        if last < 0:
            raise UserError(f"{images.name} holds no images")
        run.team.wait()
        if run.folder is not None and run.team.is_main:
            run.folder.close_stream(images.name, run.names, last + 1)
    run.team.wait()
    return _rows(run, images, kept)


def _framings(run: Run) -> tuple[list[Any], dict[str, list[int]]]:
    """The different framings of all models, and for each model the numbers of its own."""
    own = {model.name: run.measurement.framings(model) for model in run.models}
    different, numbers = distinct([framing for framings in own.values() for framing in framings])
    places = iter(numbers)
    return different, {name: list(itertools.islice(places, len(framings))) for name, framings in own.items()}


def _measured(
    run: Run,
    shards: Iterator[Shard],
    works: Mapping[str, Work],
    wanted: Mapping[str, Sequence[int]],
    lacking: Callable[[int], Sequence[str]],
    advance: Advance,
) -> Iterator[tuple[int, dict[str, pa.Table]]]:
    """Each shard with the rows of the models that lack it. What the models answer is fetched at a shard's end, so that a device
    need not wait for us."""
    for shard, parts in shards:
        found: dict[str, list[Part]] = {name: [] for name in lacking(shard)}
        for batch in parts:
            for name, some in found.items():
                some.append(works[name].rows([batch[number] for number in wanted[name]]))
            advance(next(iter(batch.values())).size)
        yield shard, {name: table_of(some, run.measurement.columns()) for name, some in found.items()}


def _keep(
    run: Run,
    images: Measurable,
    shard: int,
    shards: int | None,
    tables: Mapping[str, pa.Table],
    kept: dict[int, dict[str, pa.Table]],
) -> None:
    if run.folder is None:
        kept.update({shard: dict(tables)} if tables else {})
        return
    for model, table in tables.items():
        run.folder.write(images.name, model, shard, shards, table)


def _rows(run: Run, images: Measurable, kept: Mapping[int, Mapping[str, pa.Table]]) -> Rows:
    """What all processes have done: on the disk, or in the memory of each."""
    if run.folder is not None:
        return Rows({name: partial(run.folder.read, images.name, name) for name in run.names})
    everything = dict(pair for pairs in run.team.gathered([list(kept.items())]) for pair in pairs)
    tables = {name: pa.concat_tables([everything[shard][name] for shard in sorted(everything)]) for name in run.names}
    return Rows({name: partial(_same, table) for name, table in tables.items()})


def _same(table: pa.Table) -> pa.Table:
    return table


def _times(advance: Advance, factor: int, count: int) -> None:
    advance(count * factor)
