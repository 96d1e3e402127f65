"""How an experiment is done: its jobs, and its results from what became of them. One way for every source of data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from relevit.evaluation import Predictions
from relevit.experiments import hits as reading
from relevit.experiments.experiment import ACCURACY, EFFECTS, SHARE, Arm, Design, Run
from relevit.experiments.jobs import Job, Outcome
from relevit.experiments.results import (
    MEASURED,
    ORIGINAL,
    Cell,
    Place,
    Results,
    Value,
    cells_of,
    changes_by_model,
    findings_of,
    point,
    with_changes,
)
from relevit.statistics import over_seeds

COUNTS = ("corrected", "unchanged", "ruined", "classes that gain", "classes that lose")


@dataclass(frozen=True)
class Data:
    """What there is to run on. name: "builtin", or the root folder. found: data set to its folder; missing: data set to
    the reason. seeds: runs of a row at most, None for each experiment's own number. protocol: "standard" or "paper". models:
    those of real data (sources/models.py), none for the paper's. settings: numbers of all runs that are not the paper's."""

    name: str
    found: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    seeds: int | None = None
    protocol: Literal["standard", "paper"] = "standard"
    models: tuple[Any, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Plan(Protocol):
    """How an experiment is done on one kind of data."""

    def jobs(self, data: Data) -> list[Job]:
        """What is to be run, at once and without any computation. Where data lack, a job that others are after is run for them
        alone: `results` takes figures from jobs that no other of these is after."""
        ...

    def results(self, outcomes: Mapping[str, Outcome], data: Data, out: Path) -> Results:
        """The table, from what became of the jobs and their rows in `out`; whatever was not done says so."""
        ...


class Source(Protocol):
    """What data and models there are, and how an arm is trained and measured there; a `run` of None is the original."""

    @property
    def over(self) -> Literal["seeds", "models"]:
        """What claims are settled over."""
        ...

    def models(self, design: Design, data: Data) -> Sequence[Any]:
        """The models that are fine-tuned, each with a `name`: "" where there is one alone."""
        ...

    def before(self, design: Design, model: Any, data: Data) -> list[Job]:
        """What comes before any fine-tuning of a model: the original's own figures, trials of learning rates."""
        ...

    def training(self, model: Any, run: Run, data: Data) -> list[Job]:
        """A fine-tuning with all that it needs."""
        ...

    def tests(self, design: Design, model: Any, run: Run, data: Data) -> list[Job]:
        """The measurements of a fine-tuned model."""
        ...

    def key(self, design: Design, model: Any, run: Run | None, name: str) -> str:
        """The job whose result has the figures on the set `name`."""
        ...

    def evaluation(self, design: Design, model: Any, run: Run | None, name: str) -> str:
        """The evaluation, of OUT/evaluations, whose rows are those of the set."""
        ...

    def sets(self, name: str) -> Sequence[str]:
        """The sets whose mean a column shows, by their names in an evaluation."""
        ...

    def first(self, design: Design, rows: Predictions) -> Predictions:
        """The pictures that count, of those that were measured."""
        ...

    def groups(self, design: Design) -> Sequence[str]:
        """The groups of classes."""
        ...

    def members(self, rows: Predictions, group: str, outcomes: Mapping[str, Outcome], data: Data) -> np.ndarray | None:
        """Which pictures are of a group of classes; None where that is not known."""
        ...

    def over_images(self, run: Run | None) -> bool:
        """Whether a run's figures have intervals over its images."""
        ...

    def rate(self, model: Any, run: Run | None, result: Any) -> float | None:
        """The learning rate of a run, where it is known."""
        ...

    def published(self, design: Design, model: Any, arm: Arm | None, value: Value) -> float | None:
        """The paper's figure, None where it has none."""
        ...

    def class_words(self) -> Mapping[str, str]:
        """How classes are called, where each is a row."""
        ...

    def protocol(self, design: Design, data: Data) -> str:
        """How it was measured, in sentences."""
        ...

    def notes(self, design: Design, values: Sequence[Value], data: Data) -> list[str]:
        """What else is to be said."""
        ...


@dataclass(frozen=True)
class DesignPlan:
    """A Plan of a design on a source."""

    design: Design
    source: Source

    def jobs(self, data: Data) -> list[Job]:
        """Seeds before arms, so that whole comparisons end first."""
        found: dict[str, Job] = {}

        def add(jobs: Iterable[Job]) -> None:
            for job in jobs:
                found.setdefault(job.key, job)

        for model in self.source.models(self.design, data):
            add(self.source.before(self.design, model, data))
            for runs in zip_longest(*self.design.runs(data.seeds).values()):
                for run in (run for run in runs if run is not None):
                    add(self.source.training(model, run, data))
                    add(self.source.tests(self.design, model, run, data))
        return list(found.values())

    def results(self, outcomes: Mapping[str, Outcome], data: Data, out: Path) -> Results:
        """The values of all runs, and what is made of them."""
        measured = Measured(self.design, self.source, outcomes, data, out)
        return self.of_values(list(measured.values()), data, tuple(measured.pages()))

    def of_values(self, values: Iterable[Value], data: Data, pages: Sequence[tuple[str, str]] = ()) -> Results:
        """The results of values that are known."""
        design, source = self.design, self.source
        known = with_changes(values)
        cells = cells_of(design, known, source.class_words())
        notes = [*design.notes, *source.notes(design, known, data)]
        if design.averages:
            averages = list(self._averages(known, data))
            cells += averages
            over = dict.fromkeys(value.model for value in known if value.change is not None)
            if averages and over:
                told = f"Averages are over {', '.join(over)}, of each column those that were measured before and after."
                notes.insert(0, told)
        findings = findings_of(design, known, source.over)
        return Results(cells, findings, notes, source.protocol(design, data), known, pages)

    def in_order(self, values: Iterable[Value]) -> list[Value]:
        """Values of one model in the order of the table, and one without a figure in place of each that lacks."""
        design, found = self.design, dict[tuple[str, Place], list[Value]]()
        for value in values:
            found.setdefault((value.row, value.place), []).append(value)
        ordered: list[Value] = []
        for name in design.sets:
            share = name == SHARE
            for group in design.groups[:1] if share else self.source.groups(design):
                for figure in ("share",) if share else design.figures:
                    for row in (ORIGINAL, *design.runs()):
                        ordered += found.get((row, (name, group, figure)), [Value(row, name, figure, group)])
        return ordered

    def _averages(self, values: Sequence[Value], data: Data) -> Iterator[Cell]:
        """Rows of the change, averaged over the models; an interval over models where there are two or more."""
        changes = changes_by_model(values)
        models = self.source.models(self.design, data)
        arms = {row: runs[0].arm for row, runs in self.design.runs().items()}
        rows: dict[tuple[Any, str], list[Value]] = {}
        for value in values:
            rows.setdefault((value.place, value.row), []).append(value)
        kinds = sorted(
            rows, key=lambda key: (self.design.figures.index(key[0][2]), self.design.groups.index(key[0][1]))
        )
        for (name, group, figure), row in kinds:
            if row == ORIGINAL:
                continue
            own = changes.get((row, (name, group, figure)), {})
            averaged = [model for model in models if not own or model.name in own]
            paper = self.source.published(self.design, averaged, arms[row], rows[(name, group, figure), row][0])
            title = f"average change, {row}"
            if own:
                found = over_seeds.mean(list(own.values()))
                yield Cell(title, name, figure, group, replace(found, over="models"), paper, state=MEASURED)
                continue
            needed = [*rows.get(((name, group, figure), ORIGINAL), []), *rows[(name, group, figure), row]]
            why = next((value.state for value in needed if value.estimate is None), "")
            if not why or why == NO_IMAGE:
                why = "no model was measured before and after"
            yield Cell(title, name, figure, group, published=paper, state=why)


NO_IMAGE = "no image of these classes"


@dataclass
class Measured:
    """The figures of a design's runs, from what became of the jobs and from the rows below `out`."""

    design: Design
    source: Source
    outcomes: Mapping[str, Outcome]
    data: Data
    out: Path

    def __post_init__(self) -> None:
        self.hits = lru_cache(16)(self._hits)  # of large sets each is some 30 MB

    def values(self) -> Iterator[Value]:
        """Of every run and figure, or why there is none."""
        rows: dict[str, Sequence[Run | None]] = {ORIGINAL: [None], **self.design.runs(self.data.seeds)}
        for model in self.source.models(self.design, self.data):
            for name in self.design.sets:
                for row, runs in rows.items():
                    for run in runs:
                        for value in self._of_run(model, run, name, Value(row, name, model=model.name)):
                            paper = self.source.published(self.design, model, run.arm if run else None, value)
                            yield replace(value, published=paper)

    def pages(self) -> Iterator[tuple[str, str]]:
        """What the pages of changes are of, and where they are."""
        if self.design.test == EFFECTS:
            for model in self.source.models(self.design, self.data):
                for name in self.design.sets:
                    for row, runs in self.design.runs(self.data.seeds).items():
                        outcome = self.outcomes[self.source.key(self.design, model, runs[0], name)]
                        if outcome.state == "done":
                            yield f"{f'{model.name} {row}'.strip()}, {name}", outcome.result["page"]

    def _of_run(self, model: Any, run: Run | None, name: str, blank: Value) -> Iterator[Value]:
        if self.design.test == EFFECTS and run is None:
            return
        outcome = self.outcomes[self.source.key(self.design, model, run, name)]
        blank = replace(blank, seed=None if run is None else run.seed, state=reason(outcome))
        if outcome.state == "done":
            blank = replace(blank, rate=self.source.rate(model, run, outcome.result))
        if self.design.test == ACCURACY:
            yield from self._accuracies(model, run, outcome, blank)
            return
        figures = COUNTS if self.design.test == EFFECTS else self.design.figures
        known = {} if outcome.state != "done" else outcome.result
        known = known.get("counts", known)
        lacking = f"{self.design.test.replace('_', ' ')} gave no number here"
        for figure in figures:
            value = replace(blank, figure=figure, state=lacking if known else blank.state)
            yield value if figure not in known else replace(value, estimate=point(float(known[figure])))

    def _accuracies(self, model: Any, run: Run | None, outcome: Outcome, blank: Value) -> Iterator[Value]:
        if blank.set == SHARE:
            blank = replace(blank, figure="share", group=self.design.groups[0])
            done = outcome.state == "done"
            yield replace(blank, estimate=point(float(outcome.result[SHARE]))) if done else blank
            return
        for group in self.source.groups(self.design):
            here = self._of_group(model, run, blank.set, group) if outcome.state == "done" else None
            for figure in self.design.figures:
                value = replace(blank, group=group, figure=figure)
                if here is None:
                    why = "the classes of set A are not known" if outcome.state == "done" else value.state
                    yield replace(value, state=why)
                elif not any(len(part) for part in here):
                    yield replace(value, state=NO_IMAGE)
                elif not self.source.over_images(run):
                    yield replace(value, estimate=point(reading.accuracy(here, figure)))
                else:
                    value = replace(value, estimate=reading.estimate(here, figure))
                    yield value if run is None else self._changed(value, model, here, figure)

    def _changed(self, value: Value, model: Any, here: Sequence[Predictions], figure: str) -> Value:
        """With the change from the original, image by image."""
        if self.outcomes[self.source.key(self.design, model, None, value.set)].state != "done":
            return value
        first = self._of_group(model, None, value.set, value.group)
        return value if first is None else replace(value, change=reading.change(first[0], here[0], figure))

    def _of_group(self, model: Any, run: Run | None, name: str, group: str) -> list[Predictions] | None:
        """The hits on the images of a group of classes, of each set of a column; None where the group is not known."""
        found = []
        for part in self.source.sets(name):
            whole = self.source.first(
                self.design, self.hits(self.source.evaluation(self.design, model, run, part), part)
            )
            if group == "all":
                found.append(whole)
                continue
            members = self.source.members(whole, group, self.outcomes, self.data)
            if members is None:
                return None
            found.append(whole.only(members))
        return found

    def _hits(self, key: str, name: str) -> Predictions:
        return reading.read_hits(self.out, key, name)


def reason(outcome: Outcome) -> str:
    """Why there is no figure."""
    return outcome.reason.strip().splitlines()[-1] if outcome.reason.strip() else "not run"
