"""Per-class effects on the built-in benchmark (appendix K), from the hits that cells keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relevit.experiments.builtin_plan import PROTOCOL
from relevit.experiments.cells import Arm, cell_job, cell_key, original_job, rate_jobs
from relevit.experiments.filled import MEASURED, Data, Filled, Row
from relevit.experiments.jobs import Job, Outcome


@dataclass(frozen=True)
class ClassPlan:
    """A Plan (filled.py): an arm's accuracy on every class, and its change from the original; a row a class."""

    arm: Arm
    sets: tuple[str, ...]
    views: int = 3
    seeds: int = 5

    def _seeds(self, data: Data) -> range:
        return range(min(self.seeds, data.seeds or self.seeds))

    def jobs(self, data: Data) -> list[Job]:
        return [original_job(), *rate_jobs(self.arm), *(cell_job(self.arm, seed) for seed in self._seeds(data))]

    def fill(self, outcomes: Mapping[str, Outcome], data: Data) -> Filled:
        from relevit.data.builtin.digits import CLASSES, SET_A, test_set
        from relevit.experiments.figures import hits
        from relevit.statistics import over_seeds

        start = outcomes["original"].result
        cells = [outcomes[cell_key(self.arm, seed)].result for seed in self._seeds(data)]
        cells = [cell for cell in cells if cell is not None]
        rows, notes, runs = [], [], []
        for name in self.sets:
            labels, better, worse = test_set(name, "test", self.views).labels, [], []
            for number, title in enumerate(CLASSES):
                row = title + ("" if number in SET_A else " (held out)")
                if start is None or not cells:
                    rows.append(Row(row, name, state="not run"))
                    continue
                own = labels == number
                before = 100 * float(hits(start, name, self.views)[own].mean())
                values = [100 * float(hits(cell, name, self.views)[own].mean()) for cell in cells]
                found, change = over_seeds.mean(values), over_seeds.mean([value - before for value in values])
                settled = change.count > 1
                better += [title] if settled and change.low > 0 else []
                worse += [title] if settled and change.high < 0 else []
                rows.append(
                    Row(
                        row,
                        name,
                        ours=found.value,
                        low=found.low,
                        high=found.high,
                        seeds=found.count,
                        change=change.value,
                        change_low=change.low,
                        change_high=change.high,
                        state=MEASURED,
                    )
                )
                runs.append({"row": f"original, {title}", "seed": "", "set": name, "figure": "r1", "value": before})
                runs += [
                    {"row": f"{self.arm.row}, {title}", "seed": seed, "set": name, "figure": "r1", "value": value}
                    for seed, value in enumerate(values)
                ]
            if cells:
                said = [
                    f"{word} for {', '.join(names) or 'none'}" for word, names in (("better", better), ("worse", worse))
                ]
                notes.append(f"{name.replace('_', ' ').capitalize()}, over seeds: settled {'; '.join(said)}.")
        return Filled(rows, (), notes, PROTOCOL.format(samples="3 samples", pictures=len(labels)), runs)
