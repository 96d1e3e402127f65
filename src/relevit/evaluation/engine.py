"""One pass over the images of each set for all models and one measurement: in shards, resumed, shared among processes."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch

from relevit.data.sets import ImageSet, StreamSet
from relevit.errors import UserError
from relevit.evaluation.batches import batches, distinct
from relevit.evaluation.fingerprints import settings_of
from relevit.evaluation.folder import RowsFolder
from relevit.evaluation.measurement import LoadedModel, Measurement, Work
from relevit.evaluation.rows import Part, Rows, table_of
from relevit.evaluation.shards import shard_ranges
from relevit.models.working import device_of, working
from relevit.processes import Processes
from relevit.terminal import progress

Sets = Mapping[str, ImageSet | StreamSet]


class Done(NamedTuple):
    """Set -> model -> table of rows, read when it is asked for; and the folder that keeps them, where there is one."""

    rows: dict[str, Rows]
    folder: RowsFolder | None


@contextmanager
def run(
    models: Sequence[LoadedModel],
    sets: Sets,
    measurement: Measurement,
    *,
    command: str = "",
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    team: Processes | None = None,
    batch_size: int = 16,
    workers: int = 0,
) -> Iterator[Done]:
    """A context with the rows of all models on every set: what is missing is done, shared among the processes.

    Args:
        models, sets: each set is read once for all models, which are as before when the context begins.
        measurement: what is measured.
        command: that writes the folder, such as "evaluate".
        out: a folder that keeps the rows and knows those that are done; held until the context ends. Without it they are in memory.
        settings: what the rows depend on beside models, sets and right answers, for the folder.
        team: the processes that share the work, all of which must make the same call; where models run.
        batch_size: images in a batch.
        workers: processes that read images; 0 reads in this one.

    Raises:
        UserError: models and sets that do not go together, or a folder of others, before any long work.
    """
    team = team or Processes()
    works = _prepared(models, sets, measurement)
    folder = None
    if out is not None:
        folder = RowsFolder(out, command, settings_of(models, sets, works, settings or {}), measurement.columns())
    with nullcontext() if folder is None else folder.held(team):
        with ExitStack() as stack:
            for model in models:
                stack.enter_context(working(model.net, team.device))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            each = _Run(models, measurement, folder, team, batch_size, workers)
            rows = {name: each.rows(name, images, works[name]) for name, images in sets.items()}
        yield Done(rows, folder)


def _prepared(models: Sequence[LoadedModel], sets: Sets, measurement: Measurement) -> dict[str, dict[str, Work]]:
    """Set -> model -> what is to be done. Everything that can be wrong is found here, before any long work. Raises UserError
    with all models and sets that do not go together."""
    faults: dict[str, list[str]] = {}
    works: dict[str, dict[str, Work]] = {name: {} for name in sets}
    for name, images in sets.items():
        for model in models:
            try:
                works[name][model.name] = measurement.begin(model, images)
            except UserError as error:
                faults.setdefault(str(error), []).append(f"{model.name} on {name}")
    if len(faults) == 1:
        ((reason, where),) = faults.items()
        raise UserError(f"{where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {reason}")
    if faults:
        lines = [f"{', '.join(where)}: {reason}" for reason, where in faults.items()]
        raise UserError("\n".join([f"{len(faults)} reasons why models and benchmarks do not go together:", *lines]))
    return works


class _Todo:
    """The shards of a set that are missing, with the models that they are missing for, and which of them are for this process."""

    def __init__(self, run: _Run, name: str, images: ImageSet | StreamSet) -> None:
        self.models, self._team = [model.name for model in run.models], run.team
        self._done, count = ({}, None) if run.folder is None else run.team.of_main(run.folder.done(name, self.models))
        self.ranges = [] if isinstance(images, StreamSet) else shard_ranges(len(images))
        self.count = len(self.ranges) or count  # of a stream it is known once one model is done
        self.shards = [shard for shard in range(self.count or 0) if self._missing(shard)]
        self._mine = set(self.shards[run.team.rank :: run.team.count])

    def __bool__(self) -> bool:
        return self.count is None or bool(self._mine)

    def of(self, shard: int) -> list[str]:
        """The models whose rows of a shard this process is to find."""
        mine = shard % self._team.count == self._team.rank if self.count is None else shard in self._mine
        return self._missing(shard) if mine else []

    def _missing(self, shard: int) -> list[str]:
        return [model for model in self.models if shard not in self._done.get(model, ())]


@dataclass(frozen=True)
class _Run:
    """What is the same for all sets: see `run`."""

    models: Sequence[LoadedModel]
    measurement: Measurement
    folder: RowsFolder | None
    team: Processes
    batch_size: int
    workers: int

    def rows(self, name: str, images: ImageSet | StreamSet, works: Mapping[str, Work]) -> Rows:
        """The rows of one set. Each process does its own shards; a stream it reads from beginning to end for that."""
        todo, folder, kept = _Todo(self, name, images), self.folder, dict[int, dict[str, pa.Table]]()
        stream, last = isinstance(images, StreamSet), -1
        with closing(self._tables(name, images, works, todo)) as shards:
            for last, tables in shards if todo else ():
                if folder is None and tables:
                    kept[last] = tables
                elif folder is not None:
                    for model, table in tables.items():
                        folder.write(name, model, last, None if stream else todo.count, table)
        if todo and last < 0:
            raise UserError(f"{name} holds no images")
        self.team.wait()
        if folder is not None:
            if stream and self.team.is_main and (todo.count is None or todo.shards):
                folder.close_stream(name, todo.models, todo.count or last + 1)
            self.team.wait()
            return Rows({model: partial(folder.read, name, model) for model in todo.models})
        everything = dict(pair for pairs in self.team.gathered([list(kept.items())]) for pair in pairs)
        tables_of = {model: [everything[shard][model] for shard in sorted(everything)] for model in todo.models}
        return Rows({model: partial(pa.concat_tables, tables) for model, tables in tables_of.items()})

    def _tables(
        self, name: str, images: ImageSet | StreamSet, works: Mapping[str, Work], todo: _Todo
    ) -> Generator[tuple[int, dict[str, pa.Table]], None, None]:
        """Each shard with the rows that this process finds; of a stream every shard."""
        own = [(model.name, framing) for model in self.models for framing in self.measurement.framings(model)]
        framings, places = distinct([framing for _, framing in own])
        numbers = {
            name: [n for n, (other, _) in zip(places, own, strict=True) if other == name] for name in todo.models
        }
        if isinstance(images, StreamSet):
            total, before, factor = images.length or None, 0, 1
        else:  # the main process's bar stands for all processes, which are about as quick
            total, factor = len(images), self.team.count
            before = len(images) - sum(len(todo.ranges[shard]) for shard in todo.shards)
        read = batches(
            images,
            framings,
            lambda shard: {number for model in todo.of(shard) for number in numbers[model]},
            batch_size=self.batch_size,
            workers=self.workers,
            pin=any(device_of(model.net).type == "cuda" for model in self.models),
        )
        with closing(read), progress(name, total, before) as advance:  # reading processes end on a full disk, too
            for shard, some in groupby(read, key=lambda each: each.shard):
                parts: dict[str, list[Part]] = {model: [] for model in todo.of(shard)}
                for each in some:
                    for model, found in parts.items():
                        found.append(works[model].rows([each.framed[number] for number in numbers[model]]))
                    advance(each.size * factor)
                # What the models answer is fetched at a shard's end, so that a device need not wait for us.
                yield shard, {model: table_of(found, self.measurement.columns()) for model, found in parts.items()}
