"""Tests of the fine-tuned models of the built-in benchmark beside accuracy (Table 3; appendices A, M and N), and pictures of
what changed (Figures 1 to 3, appendix G), as experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relevit.experiments.cells import Arm, cell_job, cell_key, original_job, rate_jobs
from relevit.experiments.filled import MEASURED, Data, Filled, Row
from relevit.experiments.grids import Contrast
from relevit.experiments.jobs import Job, Outcome

_HERE = "relevit.experiments.measured"


@dataclass(frozen=True)
class MeasuredPlan:
    """A Plan (filled.py). test: of relevit.evaluation.measurements; data, train: what it reads, `limit` pictures of it.
    figures: those of its result that are shown, the columns. seconds: of one measurement."""

    test: str
    arms: tuple[Arm, ...]
    figures: tuple[str, ...]
    data: str = "builtin/in_distribution"
    train: str | None = None
    limit: int = 200
    seeds: int = 5
    contrasts: tuple[Contrast, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 10.0

    def _key(self, cell: str | None) -> str:
        place = self.data.rpartition("/")[2]
        return f"{self.test}-{place}-{cell or 'original'}"

    def _job(self, cell: str | None) -> Job:
        arguments: dict[str, Any] = {"test": self.test, "data": self.data, "name": cell, "limit": self.limit}
        arguments |= {"train": self.train} if self.train else {}
        arguments |= {"options": dict(self.options)} if self.options else {}
        after = (cell,) if cell else ()
        return Job(self._key(cell), f"{_HERE}:measure", arguments, after=after, seconds=self.seconds)

    def _seeds(self, data: Data) -> range:
        return range(min(self.seeds, data.seeds or self.seeds))

    def jobs(self, data: Data) -> list[Job]:
        found = [job for arm in self.arms for job in rate_jobs(arm)] + [self._job(None)]
        for seed in self._seeds(data):
            for arm in self.arms:
                found += [cell_job(arm, seed), self._job(cell_key(arm, seed))]
        return found

    def fill(self, outcomes: Mapping[str, Outcome], data: Data) -> Filled:
        from relevit.experiments.figures import finding
        from relevit.statistics import over_seeds

        start = outcomes[self._key(None)]
        values: dict[str, dict[int, Mapping[str, float]]] = {}
        states: dict[str, str] = {}
        for arm in self.arms:
            own = {seed: outcomes[self._key(cell_key(arm, seed))] for seed in self._seeds(data)}
            values[arm.row] = {seed: outcome.result for seed, outcome in own.items() if outcome.state == "done"}
            states[arm.row] = next((o.reason.strip().splitlines()[-1] for o in own.values() if o.reason), "not run")
        rows, runs = [], list[dict[str, Any]]()
        for figure in self.figures:
            first = start.result[figure] if start.state == "done" else None
            if first is None:
                rows.append(Row("original", figure, "share", state=start.reason or "not run"))
            else:
                rows.append(Row("original", figure, "share", ours=first, low=first, high=first, state=MEASURED))
                runs.append({"row": "original", "seed": "", "set": self.data, "figure": figure, "value": first})
            for name, by_seed in values.items():
                if not by_seed:
                    rows.append(Row(name, figure, "share", state=states[name]))
                    continue
                own_mean = over_seeds.mean([result[figure] for result in by_seed.values()])
                change = None if first is None else over_seeds.mean([r[figure] - first for r in by_seed.values()])
                rows.append(
                    Row(
                        name,
                        figure,
                        "share",
                        ours=own_mean.value,
                        low=own_mean.low,
                        high=own_mean.high,
                        seeds=own_mean.count,
                        change=change.value if change else None,
                        change_low=change.low if change else None,
                        change_high=change.high if change else None,
                        state=MEASURED,
                    )
                )
                runs += [
                    {"row": name, "seed": seed, "set": self.data, "figure": figure, "value": result[figure]}
                    for seed, result in by_seed.items()
                ]
        findings = []
        for claim in self.contrasts:
            ours = values[claim.arm]
            theirs = dict.fromkeys(ours, start.result) if claim.against == "original" else values[claim.against]
            both = sorted(seed for seed in ours if theirs.get(seed) is not None)
            differences = [ours[seed][claim.on] - theirs[seed][claim.on] for seed in both]
            findings.append(finding(claim, f"{self.test} on {self.data}", differences))
        protocol = (
            f"{self.test.replace('_', ' ').capitalize()} on {self.limit} pictures of {self.data.replace('_', ' ')}, drawn once; "
            "models of the cells of 3 samples a class. Intervals (95%): over seeds (Student's t)."
        )
        return Filled(rows, findings, (), protocol, runs)


@dataclass(frozen=True)
class PicturesPlan:
    """A Plan: what an arm's model, of seed 0, corrects, leaves and ruins on some sets; `kinds` of these are shown."""

    arm: Arm
    sets: tuple[str, ...]
    kinds: tuple[str, ...]
    each: int = 4

    def _job(self, name: str) -> Job:
        cell = cell_key(self.arm, 0)
        arguments = {"name": cell, "test_set_name": name, "each": self.each}
        return Job(f"pictures-{name}-{cell}", f"{_HERE}:pictures", arguments, after=(cell,), seconds=6)

    def jobs(self, data: Data) -> list[Job]:
        return [original_job(), *rate_jobs(self.arm), cell_job(self.arm, 0), *(self._job(name) for name in self.sets)]

    def fill(self, outcomes: Mapping[str, Outcome], data: Data) -> Filled:
        from relevit.experiments.pictures import drawn

        found, rows = [], []
        for name in self.sets:
            outcome = outcomes[self._job(name).key]
            if outcome.state != "done":
                rows.append(
                    Row(self.arm.row, name, "pictures", state=outcome.reason.strip().splitlines()[-1] or "not run")
                )
                continue
            for kind in self.kinds:
                chosen = outcome.result["pictures"][kind]
                count = float(len(chosen))
                rows.append(Row(f"{self.arm.row}, {kind}", name, "pictures", ours=count, state=MEASURED))
                if chosen:
                    found.append(drawn(name, kind, chosen))
        protocol = (
            "The built-in test sets in an order shuffled once, the first of each kind, no class twice; seed 0. The maps are of the "
            "class that each model answers."
        )
        return Filled(rows, (), (), protocol, pictures=found)
