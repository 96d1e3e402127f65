"""The whole experiment on the built-in benchmark: every method, number of samples and seed, over several processes,
resumable.

Each figure is a small JSON file of its own in the output folder, written when it is done; a second start does only what
is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

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
from relevit.files import atomic_write
from relevit.rates import choose_rate

Cell = dict[str, Any]


def _original() -> Any:
    from relevit.models import load

    return load("builtin")[0]


def run_cell(cell: Cell) -> Cell:
    """One fine-tuning and its figures: of the validation samples for a trial of a rate, else of every test set.

    It runs on one thread, so that its result does not depend on how many run beside it.
    """
    import torch

    torch.set_num_threads(1)
    model = original = _original()
    if cell["method"] != "original":
        model = fine_tune(original, cell["method"], cell["per_class"], cell["seed"], cell["lr"]).model
    figures: dict[str, Any] = rate_figures(model) if cell["trial"] else all_figures(model)
    if cell["method"] in AUTOMATIC:
        figures["masks"] = mask_figures(original, cell["per_class"], cell["seed"])
    return {**cell, "figures": figures}


def _cell(method: str, per_class: int, seed: int, lr: float, trial: bool) -> Cell:
    return {"method": method, "per_class": per_class, "seed": seed, "lr": lr, "trial": trial}


def _file(out: Path, cell: Cell) -> Path:
    kind = f"rate-{cell['lr']:g}" if cell["trial"] else f"seed-{cell['seed']}"
    return out / "cells" / f"{cell['method']}-{cell['per_class']}-{kind}.json"


def run_cells(
    cells: Sequence[Cell], out: Path, processes: int | None = None, say: Callable[[str], None] = print
) -> list[Cell]:
    """The results of all cells, in their order; those that are there already are read."""
    missing = [cell for cell in cells if not _file(out, cell).exists()]
    if missing:
        processes = processes or min(len(missing), os.cpu_count() or 1)
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(run_cell, cell): cell for cell in missing}
            for done, future in enumerate(as_completed(futures), 1):
                atomic_write(_file(out, futures[future]), json.dumps(future.result(), indent=1) + "\n")
                say(f"[{done}/{len(missing)}] {_file(out, futures[future]).stem}")
    return [json.loads(_file(out, cell).read_text()) for cell in cells]


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


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95% interval (Student's t) of figures over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": mean, "high": mean}
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _merged(parts: Sequence[Any]) -> Any:
    """The figures of several seeds, merged leaf by leaf."""
    if "mean" in parts[0]:
        return over_seeds([part["mean"] for part in parts])
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
