"""How an experiment is done: its jobs, and its results from what became of them. One way for every source of data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from relevit.evaluation import Predictions
from relevit.experiments import hits as reading
from relevit.experiments.experiment import ACCURACY, EACH_CLASS, EFFECTS, SHARE, Data, Design, Run
from relevit.experiments.jobs import Job, Outcome
from relevit.experiments.published import average_change, figure_of
from relevit.experiments.results import (
    ORIGINAL,
    Cell,
    Place,
    Results,
    cells_of,
    changes_by_model,
    findings_of,
    point,
    with_changes,
)
from relevit.experiments.sources.models import PaperModel
from relevit.statistics import over_seeds

COUNTS = ("corrected", "unchanged", "ruined", "classes that gain", "classes that lose")
NO_IMAGE = "no image of these classes"


@runtime_checkable
class Plan(Protocol):
    """How an experiment is done on some data."""

    def jobs(self) -> list[Job]:
        """What is to be run, at once and without any computation. Where data lack, a job that others are after is run for them
        alone: `results` takes figures from jobs that no other of these is after."""
        ...

    def results(self, outcomes: Mapping[str, Outcome], out: Path) -> Results:
        """The table, from what became of the jobs and their rows in `out`; whatever was not done says so."""
        ...


@runtime_checkable
class Source(Protocol):
    """What models, samples and test sets there are, and the jobs that fine-tune and measure there; a `run` of None is the original."""

    @property
    def data(self) -> Data: ...

    @property
    def over(self) -> Literal["seeds", "models"]:
        """What claims are settled over."""
        ...

    @property
    def classes(self) -> Mapping[str, str]:
        """How each class is called, where there are rows of classes."""
        ...

    def models(self, design: Design) -> Sequence[PaperModel]:
        """The models that are fine-tuned; one alone has no name."""
        ...

    def preparation(self, design: Design, model: PaperModel, run: Run | None) -> list[Job]:
        """What comes before the tests: of a run a fine-tuning with all that it needs, of the original what comes before any."""
        ...

    def tests(self, design: Design, model: PaperModel, run: Run | None) -> Mapping[str, Job]:
        """By set the job whose result has the figures; where it is of accuracy, the rows are in OUT/evaluations/KEY."""
        ...

    def sets(self, name: str) -> Sequence[str]:
        """The sets whose mean a column shows, by their names in an evaluation."""
        ...

    def counted(
        self, design: Design, rows: Predictions, group: str, outcomes: Mapping[str, Outcome]
    ) -> np.ndarray | None:
        """Which images count for a group of classes, of those that were measured; None where that is not known."""
        ...

    def protocol(self, design: Design) -> str:
        """How it was measured, in sentences."""
        ...

    def notes(self, design: Design, values: Sequence[Cell]) -> list[str]:
        """What else is to be said."""
        ...


@dataclass(frozen=True)
class DesignPlan:
    """A Plan of a design on a source."""

    design: Design
    source: Source

    @property
    def runs(self) -> dict[str, list[Run]]:
        """The runs of each row below the original."""
        return self.design.runs(self.source.data.seeds)

    @property
    def groups(self) -> Sequence[str]:
        """The groups of classes."""
        return list(self.source.classes) if EACH_CLASS in self.design.groups else self.design.groups

    def jobs(self) -> list[Job]:
        """Seeds before arms, so that whole comparisons end first."""
        jobs: dict[str, Job] = {}
        for model in self.source.models(self.design):
            runs = [run for runs in zip_longest(*self.runs.values()) for run in runs if run is not None]
            for run in (None, *runs):
                tests = self.source.tests(self.design, model, run)
                for job in (*self.source.preparation(self.design, model, run), *tests.values()):
                    jobs.setdefault(job.key, job)
        return list(jobs.values())

    def results(self, outcomes: Mapping[str, Outcome], out: Path) -> Results:
        """The values of all runs, and what is made of them."""
        measured = _Measured(self, outcomes, out)
        return self.of_values(list(measured.values()), tuple(measured.pages()))

    def of_values(self, values: Iterable[Cell], pages: Sequence[tuple[str, str]] = ()) -> Results:
        """The results of values that are known."""
        design, source = self.design, self.source
        known = with_changes(values)
        cells = cells_of(design, known, source.classes)
        notes = [*design.notes, *source.notes(design, known)]
        if design.averages:
            averages = list(self._averages(known))
            cells += averages
            over = dict.fromkeys(value.model for value in known if value.change is not None)
            if averages and over:
                told = f"Averages are over {', '.join(over)}, of each column those that were measured before and after."
                notes.insert(0, told)
        findings = findings_of(design, known, source.over)
        return Results(cells, findings, notes, source.protocol(design), known, pages)

    def in_order(self, values: Iterable[Cell]) -> list[Cell]:
        """Values of one model in the order of the table, and one without a figure in place of each that lacks."""
        design, known = self.design, dict[tuple[str, Place], list[Cell]]()
        for value in values:
            known.setdefault((value.row, value.place), []).append(value)
        ordered: list[Cell] = []
        for name in design.sets:
            share = name == SHARE
            for group in design.groups[:1] if share else self.groups:
                for figure in ("share",) if share else design.figures:
                    for row in (ORIGINAL, *design.runs()):
                        ordered += known.get((row, (name, group, figure)), [Cell(row, name, figure, group)])
        return ordered

    def _averages(self, values: Sequence[Cell]) -> Iterator[Cell]:
        """Rows of the change, averaged over the models; an interval over models where there are two or more."""
        design, changes = self.design, changes_by_model(values)
        models = [model.name for model in self.source.models(design)]
        kept: dict[tuple[Place, str], list[Cell]] = {}
        for value in values:
            kept.setdefault((value.place, value.row), []).append(value)
        kinds = sorted(kept, key=lambda key: (design.figures.index(key[0][2]), design.groups.index(key[0][1])))
        for place, row in kinds:
            if row == ORIGINAL:
                continue
            own = changes.get((row, place), {})
            method, masks = self.runs[row][0].arm.published or ("", "")
            paper = None
            if design.table in (1, 2) and method == "ours" and place[1] == "all":
                over = [model for model in models if not own or model in own]
                paper = average_change(design.table, method, masks, place[0], place[2], over)
            cell = Cell(f"average change, {row}", place[0], place[2], place[1], published=paper)
            if own:
                yield replace(cell, ours=replace(over_seeds.mean(list(own.values())), over="models"))
                continue
            needed = [*kept.get((place, ORIGINAL), []), *kept[place, row]]
            why = next((value.reason for value in needed if value.ours is None), "")
            unmeasured = not why or why == NO_IMAGE
            yield replace(cell, reason="no model was measured before and after" if unmeasured else why)


class _Measured:
    """The figures of a plan's runs, from what became of the jobs and from the rows below `out`."""

    def __init__(self, plan: DesignPlan, outcomes: Mapping[str, Outcome], out: Path) -> None:
        self.plan, self.design, self.source, self.outcomes = plan, plan.design, plan.source, outcomes
        self.hits = lru_cache(16)(lambda key, name: reading.read_hits(out, key, name))  # of large sets some 30 MB each

    def values(self) -> Iterator[Cell]:
        """Of every run and figure, or why there is none."""
        rows: dict[str, Sequence[Run | None]] = {ORIGINAL: [None], **self.plan.runs}
        for model in self.source.models(self.design):
            tests = [(row, run, self.source.tests(self.design, model, run)) for row in rows for run in rows[row]]
            original = tests[0][2]
            for name in self.design.sets:
                for row, run, jobs in tests:
                    if name not in jobs:  # pages of changes have none of the original
                        continue
                    seed, outcome = None if run is None else run.seed, self.outcomes[jobs[name].key]
                    blank = Cell(row, name, reason=reason(outcome), model=model.name, seed=seed)
                    if outcome.state == "done" and run is not None:
                        rate = outcome.result.get("rate") if model.lr is None else model.lr * run.arm.factor
                        blank = replace(blank, rate=rate)
                    if self.design.test == ACCURACY:
                        found = self._accuracies(blank, jobs[name], None if run is None else original[name])
                    else:
                        found = self._figures(blank, outcome)
                    method, masks = (ORIGINAL, "none") if run is None else run.arm.published or ("", "")
                    for value in found:
                        paper = figure_of(self.design.table, model.name, method, masks, name, value.figure)
                        yield replace(value, published=paper if value.group == "all" else None)

    def pages(self) -> Iterator[tuple[str, str]]:
        """What the pages of changes are of, and where they are."""
        for model in self.source.models(self.design) if self.design.test == EFFECTS else ():
            for name in self.design.sets:
                for row, runs in self.plan.runs.items():
                    outcome = self.outcomes[self.source.tests(self.design, model, runs[0])[name].key]
                    if outcome.state == "done":
                        yield f"{f'{model.name} {row}'.strip()}, {name}", outcome.result["page"]

    def _figures(self, blank: Cell, outcome: Outcome) -> Iterator[Cell]:
        """Of a test beside accuracy: those that its result has."""
        known: dict[str, Any] = outcome.result if outcome.state == "done" else {}
        known = known.get("counts", known)
        lacking = f"{self.design.test.replace('_', ' ')} gave no number here"
        for figure in COUNTS if self.design.test == EFFECTS else self.design.figures:
            value = replace(blank, figure=figure, reason=lacking if known else blank.reason)
            yield value if figure not in known else replace(value, ours=point(float(known[figure])))

    def _accuracies(self, blank: Cell, job: Job, original: Job | None) -> Iterator[Cell]:
        """From the rows of the job, with changes from the original's. original: None of itself."""
        done = self.outcomes[job.key].state == "done"
        if blank.column == SHARE:
            blank = replace(blank, figure="share", group=self.design.groups[0])
            yield replace(blank, ours=point(float(self.outcomes[job.key].result[SHARE]))) if done else blank
            return
        for group in self.plan.groups:
            here = self._of_group(job, blank.column, group) if done else None
            for figure in self.design.figures:
                value = replace(blank, group=group, figure=figure)
                if here is None:
                    yield replace(value, reason="the classes of set A are not known") if done else value
                elif not any(len(part) for part in here):
                    yield replace(value, reason=NO_IMAGE)
                elif original is not None and self.source.over == "seeds":
                    yield replace(value, ours=point(reading.accuracy(here, figure)))
                else:
                    value = replace(value, ours=reading.estimate(here, figure))
                    if original is not None and self.outcomes[original.key].state == "done":
                        before = self._of_group(original, blank.column, group)
                        assert before is not None
                        value = replace(value, change=reading.change(before[0], here[0], figure))
                    yield value

    def _of_group(self, job: Job, name: str, group: str) -> list[Predictions] | None:
        """The hits on the images of a group of classes, of each set of a column; None where the group is not known."""
        parts = []
        for part in self.source.sets(name):
            rows = self.hits(job.key, part)
            counted = self.source.counted(self.design, rows, group, self.outcomes)
            if counted is None:
                return None
            parts.append(rows.only(counted))
        return parts


def reason(outcome: Outcome) -> str:
    """Why there is no figure."""
    return outcome.reason.strip().splitlines()[-1] if outcome.reason.strip() else "not run"
