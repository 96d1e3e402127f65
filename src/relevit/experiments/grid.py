"""The whole experiment of `relevit demo --full`: every method, number of samples and seed, over several processes,
resumable. Each cell is a job (jobs.py), whose figures are a file of its own in the output folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from relevit.errors import UserError
from relevit.experiments.builtin import (
    AUTOMATIC,
    METHODS,
    PER_CLASS,
    RATES,
    SEEDS,
    TUNING_SEED,
    all_figures,
    fine_tune,
    mask_figures,
    rate_figures,
)
from relevit.experiments.jobs import Job, run_jobs
from relevit.files import atomic_write
from relevit.statistics import over_seeds
from relevit.training.learning_rate import choose_rate

Cell = dict[str, Any]


def _original() -> Any:
    from relevit.models.loading import load

    return load("builtin")[0]


def run_cell(method: str, per_class: int, seed: int, lr: float, trial: bool) -> Cell:
    """One fine-tuning and its figures: of the validation samples for a trial of a rate, else of every test set."""
    model = original = _original()
    if method != "original":
        model = fine_tune(original, method, per_class, seed, lr).model
    figures: dict[str, Any] = rate_figures(model) if trial else all_figures(model)
    if method in AUTOMATIC:
        figures["masks"] = mask_figures(original, per_class, seed)
    return {**_cell(method, per_class, seed, lr, trial), "figures": figures}


def _cell(method: str, per_class: int, seed: int, lr: float, trial: bool) -> Cell:
    return {"method": method, "per_class": per_class, "seed": seed, "lr": lr, "trial": trial}


def _job(cell: Cell) -> Job:
    kind = f"rate-{cell['lr']:g}" if cell["trial"] else f"seed-{cell['seed']}"
    key = f"{cell['method']}-{cell['per_class']}-{kind}"
    return Job(key, "relevit.experiments.grid:run_cell", cell)


def run_cells(
    cells: Sequence[Cell], out: Path, processes: int | None = None, say: Callable[[str], object] = print
) -> list[Cell]:
    """The results of all cells, in their order; those that are there already are read. Raises UserError if one fails,
    when the others are done."""
    jobs = [_job(cell) for cell in cells]
    outcomes = run_jobs(jobs, out, workers=processes, say=say)
    for key, outcome in outcomes.items():
        if outcome.state != "done":
            raise UserError(f"the cell {key} failed: {outcome.reason}\nThe same command tries it again, and goes on")
    return [outcomes[job.key].result for job in jobs]


def choose_rates(
    out: Path,
    methods: Iterable[str] = METHODS,
    per_class: Iterable[int] = PER_CLASS,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """The learning rate of every method and number of samples by the paper's rule: `"<method>-<n>"` to rate; also in
    rates.json."""
    pairs = list(product(methods, per_class))
    trials = [_cell(m, n, TUNING_SEED, lr, True) for m, n in pairs for lr in RATES]
    start, *results = run_cells([_cell("original", 0, TUNING_SEED, 0.0, True), *trials], out, say=say)
    rates = {}
    for method, n in pairs:
        own = {r["lr"]: r["figures"] for r in results if (r["method"], r["per_class"]) == (method, n)}
        rates[f"{method}-{n}"] = choose_rate(start["figures"], own)
    atomic_write(out / "rates.json", json.dumps(rates, indent=1) + "\n")
    return rates


def _merged(parts: Sequence[Any]) -> Any:
    """The figures of several seeds, merged leaf by leaf."""
    if "mean" in parts[0]:
        found = over_seeds.mean([part["mean"] for part in parts])
        return {"mean": found.value, "low": found.low, "high": found.high}
    return {key: _merged([part[key] for part in parts]) for key in parts[0]}


def run_grid(
    out: Path,
    methods: Sequence[str] = METHODS,
    per_class: Sequence[int] = PER_CLASS,
    seeds: Sequence[int] = SEEDS,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """All of it: rates by the rule, then every cell; `figures[n][method]` over the seeds and the original's own
    figures. Methods with automatic masks (AUTOMATIC) run at the rate that the rule gives with exact ones."""
    rates = choose_rates(out, methods, per_class, say)
    arms = [*methods, *(name for name, method in AUTOMATIC.items() if method in methods)]
    cells = [_cell(a, n, s, rates[f"{AUTOMATIC.get(a, a)}-{n}"], False) for n, s, a in product(per_class, seeds, arms)]
    original, *results = run_cells([_cell("original", 0, 0, 0.0, False), *cells], out, say=say)
    figures: dict[str, Any] = {}
    for n, method in product(per_class, arms):
        own = [r["figures"] for r in results if (r["method"], r["per_class"]) == (method, n)]
        figures.setdefault(str(n), {"original": original["figures"]})[method] = _merged(own)
    return {"rates": rates, "seeds": list(seeds), "figures": figures}
