"""A declared grid (grids.py) as an experiment on the built-in benchmark: its jobs, and its table from their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relevit.experiments.cells import figures_key
from relevit.experiments.filled import MEASURED, Data, Filled, Finding, Row
from relevit.experiments.grids import Contrast, Entry, Grid
from relevit.experiments.jobs import Job, Outcome

if TYPE_CHECKING:
    pass

PROTOCOL = (
    "Built-in benchmark: {samples} of each of 10 classes unless the row says otherwise, 50 epochs, batches of 8; learning "
    "rates by the paper's rule on held-out classes, one for each row; the last epoch. {pictures} test pictures a set. "
    "Intervals (95%): over seeds (Student's t), changes paired with the original on the same pictures; of the original over "
    "test objects."
)


@dataclass(frozen=True)
class GridPlan:
    """A Plan (filled.py)."""

    grid: Grid

    def jobs(self, data: Data) -> list[Job]:
        return self.grid.jobs(data.seeds)

    def fill(self, outcomes: Mapping[str, Outcome], data: Data) -> Filled:
        from relevit.data.builtin.digits import test_set
        from relevit.experiments.figures import SHARE, of_original, value
        from relevit.statistics import over_seeds

        grid, seeds = self.grid, range(min(self.grid.seeds, data.seeds or self.grid.seeds))
        first_key = figures_key(grid.start)
        start = outcomes[first_key].result
        done = {entry.row: _results(entry, seeds, outcomes) for entry in grid.entries()}
        rows: list[Row] = []
        for figure in grid.figures:
            for group in grid.groups:
                for name in grid.sets:
                    if name == SHARE and (figure, group) != (grid.figures[0], grid.groups[0]):
                        continue  # of all pictures
                    key: dict[str, Any] = {"column": name, "figure": figure, "group": group}
                    if start is None:
                        rows.append(Row("original", **key, state=_state([outcomes[first_key]])))
                        continue
                    first = of_original(start, name, grid.views, figure, group)
                    rows.append(
                        Row("original", **key, ours=first.value, low=first.low, high=first.high, state=MEASURED)
                    )
                    for entry in grid.entries():
                        results = done[entry.row]
                        if not results:
                            state = _state([outcomes[entry.key(seed)] for seed in seeds])
                            rows.append(Row(entry.row, **key, state=state))
                            continue
                        values = [value(r, name, grid.views, figure, group) for r in results.values()]
                        own = over_seeds.mean(values)
                        rows.append(
                            Row(
                                entry.row,
                                **key,
                                ours=own.value,
                                low=own.low,
                                high=own.high,
                                seeds=own.count,
                                change=own.value - first.value,
                                change_low=own.low - first.value,
                                change_high=own.high - first.value,
                                state=MEASURED,
                            )
                        )
        rows.sort(key=lambda row: (grid.figures.index(row.figure), grid.groups.index(row.group)))
        findings = [_finding(c, start, done, grid) for c in grid.contrasts]
        pictures = len(test_set(grid.sets[0], "test", grid.views)) if grid.sets[0] != "shifted" else 0
        rates = {arm.row: next(iter(done[arm.row].values()))["rate"] for arm in grid.arms if done[arm.row]}
        notes = [
            *grid.notes,
            *(_average_changes(grid.table) if grid.table else ()),
            "Learning rates: " + ", ".join(f"{name} {rate:g}" for name, rate in rates.items()) + ".",
        ]
        fewer = [f"{name} {len(results)}" for name, results in done.items() if len(results) < len(seeds)]
        if fewer:
            notes.append(f"Of {len(seeds)} seeds, fewer are done: " + ", ".join(fewer) + ".")
        return Filled(
            rows,
            findings,
            notes,
            PROTOCOL.format(samples="3 samples", pictures=pictures),
            _runs(grid, start, done),
        )


def _average_changes(table: int) -> list[str]:
    """The bottom rows of the paper's Table 1 or 2, as sentences: for comparison with the changes here, of other data."""
    from relevit.experiments.published import average_change, published

    kinds = dict.fromkeys((c.method, c.masks) for c in published(table) if c.method != "original")
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


def _results(entry: Entry, seeds: range, outcomes: Mapping[str, Outcome]) -> dict[int, Any]:
    """Seed to result, of the cells that are done."""
    found = {seed: outcomes[entry.key(seed)].result for seed in seeds}
    return {seed: result for seed, result in found.items() if result is not None}


def _state(outcomes: list[Outcome]) -> str:
    """Why there is no figure."""
    reasons = [f"{o.state}: {o.reason.strip().splitlines()[-1]}" for o in outcomes if o.reason]
    return reasons[0] if reasons else "not run"


def _finding(claim: Contrast, start: Any, done: Mapping[str, Mapping[int, Any]], grid: Grid) -> Finding:
    """A claim's paired difference over the seeds that both arms have."""
    from relevit.experiments.figures import finding, value

    ours = done[claim.arm]
    theirs = dict.fromkeys(ours, start) if claim.against == "original" else done[claim.against]
    both = sorted(set(ours) & set(theirs)) if start is not None else []
    how = (claim.on, grid.views, claim.figure, claim.group)
    return finding(claim, "accuracy", [value(ours[seed], *how) - value(theirs[seed], *how) for seed in both])


def _runs(grid: Grid, start: Any, done: Mapping[str, Mapping[int, Any]]) -> list[dict[str, Any]]:
    """A dictionary for each run and figure."""
    from relevit.experiments.figures import SHARE, value

    runs = []
    everything: dict[str, Mapping[Any, Any]] = {"original": {"": start} if start is not None else {}, **done}
    for row, results in everything.items():
        for seed, result in results.items():
            for name in grid.sets:
                for figure in grid.figures:
                    for group in grid.groups:
                        if name == SHARE and (figure, group) != (grid.figures[0], grid.groups[0]):
                            continue
                        runs.append(
                            {
                                "row": row,
                                "seed": seed,
                                "rate": result.get("rate", ""),
                                "set": name,
                                "group": group,
                                "figure": "share" if name == SHARE else figure,
                                "value": value(result, name, grid.views, figure, group),
                                "pictures_per_object": grid.views,
                            }
                        )
    return runs
