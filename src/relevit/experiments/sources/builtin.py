"""The built-in benchmark as a source of experiments: its jobs by their keys, and how their results are read.

A fine-tuning is a job, its cell: an arm and a seed. Its learning rate follows the paper's rule, on validation samples of the held-out
classes: the highest rate of a grid at which validation accuracy falls by at most 2.5 points and the classification loss (Eq. 4) does not
rise (if it rises at every rate, accuracy decides alone). Test sets are only ever measured, never used for a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from relevit.data.builtin.digits import CLASSES, SET_A, TEST_SETS
from relevit.evaluation import Predictions
from relevit.experiments.experiment import ACCURACY, EACH_CLASS, EFFECTS, SHIFTED, Arm, Data, Design, Run
from relevit.experiments.jobs import Job, Outcome
from relevit.experiments.published import average_change, published
from relevit.experiments.results import ORIGINAL, Cell
from relevit.experiments.sources.models import PaperModel
from relevit.statistics import over_seeds

WORK = "relevit.experiments.sources.builtin_work"
VIEWS = 3  # pictures of each test object
STARTS = ("original", "linear-head")  # the built-in model, and its backbone with a new linear head
PROTOCOL = (
    "Built-in benchmark: {samples} samples of each of 10 classes unless the row says otherwise, 50 epochs, batches of 8; learning "
    "rates by the paper's rule on held-out classes, one for each row; the last epoch. {pictures} test pictures a set. "
    "Intervals (95%): over seeds (Student's t), changes paired with the original on the same pictures; of the original over "
    "test objects."
)
_STEP = 0.09  # seconds of an optimiser step with maps on one core


# Jobs.


def start_jobs(start: str = "original") -> list[Job]:
    """What makes the model that is fine-tuned: nothing, but for the linear head."""
    if start == "original":
        return []
    return [Job(start, f"{WORK}:linear_head", {"name": start}, seconds=60)]


def original_job(start: str = "original") -> Job:
    """The figures of the model that is fine-tuned."""
    if start == "original":
        return Job(start, f"{WORK}:original", {"views": VIEWS}, seconds=30)
    return Job(f"{start}-figures", f"{WORK}:original", {"views": VIEWS, "start": start}, after=(start,), seconds=30)


def spec(arm: Arm) -> dict[str, Any]:
    """What distinguishes an arm, as arguments of the work; the usual values are left out."""
    usual = Arm("")
    names = ("masks", "explainer", "per_class", "classes", "start", "options")
    changed = {name: getattr(arm, name) for name in names if getattr(arm, name) != getattr(usual, name)}
    return {"method": arm.method, **changed}


def training_seconds(arm: Arm) -> float:
    """Of one core, about."""
    return 2 + _STEP * arm.cost * 50 * -(-arm.per_class * (arm.classes or 10) // 8)


def rate_jobs(arm: Arm) -> list[Job]:
    """The trials of every rate, and the rule's choice among them; those of the other arm for one that takes its rate."""
    if arm.rate_of is not None:
        return rate_jobs(arm.rate_of)
    before = start_jobs(arm.start)
    more, after = ({"start": arm.start} if before else {}), tuple(job.key for job in before)
    start = Job(f"{arm.start}-rate", f"{WORK}:trial", {"rate": None, **more}, after=after, seconds=2)
    trials = [
        Job(f"{arm.label}-rate-{rate:g}", f"{WORK}:trial", {**spec(arm), "rate": rate}, (), after, training_seconds(arm) + 2)
        for rate in arm.rates
    ]  # fmt: skip
    keys = {f"{rate:g}": job.key for rate, job in zip(arm.rates, trials, strict=True)}
    choice = Job(f"{arm.label}-rate", f"{WORK}:choose", {"trials": keys, **more}, after=(start.key, *keys.values()))
    return [*before, start, *trials, choice]


def cell_job(run: Run) -> Job:
    """One fine-tuning and its figures."""
    arm, key = run.arm, f"{run.arm.label}-seed-{run.seed}"
    arguments = {**spec(arm), "seed": run.seed, "views": arm.pictures_per_object, "name": key}
    if arm.factor != 1.0:
        arguments["factor"] = arm.factor
    if arm.class_seed == "run":
        arguments["choice"] = run.seed
    seconds = training_seconds(arm) + 4 + 10 * arm.pictures_per_object
    return Job(key, f"{WORK}:cell", arguments, after=(rate_jobs(arm)[-1].key,), seconds=seconds)


def interpolated_job(run: Run) -> Job:
    """The figures of a model on the way to a run's."""
    cell = cell_job(run).key
    arguments = {"name": cell, "share": run.share, "views": 1}
    return Job(f"{cell}-interpolated-{run.share:g}", f"{WORK}:interpolated", arguments, after=(cell,), seconds=14)


def measurement_job(design: Design, run: Run | None) -> Job:
    """A measurement of relevit.evaluation."""
    (data,) = design.sets
    name = None if run is None else cell_job(run).key
    arguments: dict[str, Any] = {"test": design.test, "data": data, "name": name, "limit": design.limit}
    arguments |= {"train": design.train} if design.train else {}
    arguments |= {"options": dict(design.options)} if design.options else {}
    key = f"{design.test}-{data.rpartition('/')[2]}-{name or ORIGINAL}"
    return Job(key, f"{WORK}:measure", arguments, after=(name,) if name else (), seconds=design.cost)


def page_job(run: Run, name: str) -> Job:
    """The page of what a run changed on a set."""
    cell = cell_job(run).key
    arguments = {"name": cell, "test_set_name": name, "arm": run.arm.row}
    return Job(f"pictures-{name}-{cell}", f"{WORK}:effects", arguments, after=(original_job().key, cell), seconds=6)


@dataclass(frozen=True)
class Builtin:
    """A Source (plan.py)."""

    data: Data
    over: Literal["seeds", "models"] = "seeds"

    @property
    def classes(self) -> Mapping[str, str]:
        return {name: name + ("" if number in SET_A else " (held out)") for number, name in enumerate(CLASSES)}

    def models(self, design: Design) -> Sequence[PaperModel]:
        return [PaperModel("", "builtin")]

    def preparation(self, design: Design, model: PaperModel, run: Run | None) -> list[Job]:
        if run is not None:
            return [cell_job(run)]
        measured, start = design.test in (ACCURACY, EFFECTS), design.arms[0].start
        first = [*start_jobs(start), original_job(start)] if measured else [measurement_job(design, None)]
        return [*first, *(job for arm in design.arms for job in rate_jobs(arm))]

    def tests(self, design: Design, model: PaperModel, run: Run | None) -> Mapping[str, Job]:
        if design.test == EFFECTS:
            return {} if run is None else {name: page_job(run, name) for name in design.sets}
        if design.test != ACCURACY:
            return {name: measurement_job(design, run) for name in design.sets}
        if run is None:
            return dict.fromkeys(design.sets, original_job(design.arms[0].start))
        return dict.fromkeys(design.sets, cell_job(run) if run.share is None else interpolated_job(run))

    def sets(self, name: str) -> Sequence[str]:
        return [f"builtin/{part}" for part in (TEST_SETS[1:] if name == SHIFTED else [name])]

    def counted(
        self, design: Design, rows: Predictions, group: str, outcomes: Mapping[str, Outcome]
    ) -> np.ndarray | None:
        """Of each object the first pictures: a set has one of every object, then the second of every object."""
        assert rows.objects is not None
        first = rows.indices < design.pictures_per_object * len(np.unique(rows.objects))
        if group in ("set_a", "rest"):
            in_a = np.isin(rows.groups, [CLASSES[number] for number in SET_A])
            return first & (in_a == (group == "set_a"))
        return first if group == "all" else first & (rows.groups == group)

    def protocol(self, design: Design) -> str:
        if design.test == EFFECTS:
            return "Each page is of one fine-tuning, of seed 0, and of all pictures of a test set."
        if design.test != ACCURACY:
            words, (name,) = design.test.replace("_", " ").capitalize(), design.sets
            return (
                f"{words} on {design.limit} pictures of {name.replace('_', ' ')}, drawn once; models of the cells of 3 samples a class. "
                "Intervals (95%): over seeds (Student's t)."
            )
        samples = design.arms[0].per_class if len({arm.per_class for arm in design.arms}) == 1 else 3
        return PROTOCOL.format(samples=samples, pictures=40 * len(CLASSES) * design.pictures_per_object)

    def notes(self, design: Design, values: Sequence[Cell]) -> list[str]:
        """Rates, seeds that lack, changes of the classes."""
        if design.test != ACCURACY:
            return []
        if EACH_CLASS in design.groups:
            return _settled_classes(values)
        notes = _average_changes(design.table) if design.table else []
        rates = {v.row: v.rate for v in reversed(values) if v.rate is not None and v.ours is not None}
        listed = ", ".join(f"{arm.row} {rates[arm.row]:g}" for arm in design.arms if arm.row in rates)
        notes.append(f"Learning rates: {listed}.")
        runs = design.runs(self.data.seeds)
        done = {row: len({v.seed for v in values if v.row == row and v.ours is not None}) for row in runs}
        fewer = [f"{row} {count}" for row, count in done.items() if count < len(runs[row])]
        if fewer:
            most = max(len(own) for own in runs.values())
            notes.append(f"Of {most} seeds, fewer are done: " + ", ".join(fewer) + ".")
        return notes


def _settled_classes(values: Sequence[Cell]) -> list[str]:
    """Which classes gain and lose on each set, over seeds."""
    changes: dict[str, dict[str, list[float]]] = {}
    for value in values:
        if value.change is not None:
            changes.setdefault(value.column, {}).setdefault(value.group, []).append(value.change.value)
    notes = []
    for name, by_class in changes.items():
        found = {title: over_seeds.mean(own) for title, own in by_class.items() if len(own) > 1}
        better = ", ".join(title for title, change in found.items() if change.low > 0) or "none"
        worse = ", ".join(title for title, change in found.items() if change.high < 0) or "none"
        words = name.replace("_", " ").capitalize()
        notes.append(f"{words}, over seeds: settled better for {better}; worse for {worse}.")
    return notes


def _average_changes(table: int) -> list[str]:
    """The bottom rows of the paper's Table 1 or 2, as sentences: for comparison with the changes here, of other data."""
    kinds = dict.fromkeys((c.method, c.masks) for c in published(table) if c.method != ORIGINAL)
    sets = dict.fromkeys(c.benchmark for c in published(table))
    sentences = []
    for method, masks in kinds:
        changes = {name: average_change(table, method, masks, name) for name in sets}
        listed = ", ".join(f"{name} {change:+.1f}" for name, change in changes.items() if change is not None)
        sentences.append(f"{method} with {masks} masks: {listed}")
    return [
        f"In the paper's Table {table}, R@1 changes on average over those models whose figures could be read (points), "
        + "; ".join(sentences)
        + "."
    ]
