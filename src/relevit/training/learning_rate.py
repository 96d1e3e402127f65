"""The learning rate by the paper's rule, `finetune(lr="auto")`: a run for each rate of a grid, the validation samples decide.

The rule: the highest rate at which validation accuracy falls by at most 2.5 points and the classification loss (Eq. 4) does
not rise. The paper's grid for its models is 5e-7 to 5e-6; a small model wants higher ones, and so do low-rank adapters.
A trial is a run of its own, in RUN/trials/RATE, and the one that is chosen is the run.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from relevit import terminal
from relevit.errors import UserError
from relevit.files import atomic_write
from relevit.folders import OwnedFolder
from relevit.models.saving import restore
from relevit.training.monitor import NonFiniteLossError
from relevit.training.prepare import Setup, prepare
from relevit.training.run_folder import KIND, TRIALS
from relevit.training.settings import TrainingSettings

ACCURACY_MAY_FALL = 2.5  # points
LARGE = 15_000_000  # parameters; the paper's smallest models have 22 million
RATES_OF_LARGE = (5e-7, 1e-6, 2e-6, 3e-6, 5e-6)
RATES_OF_SMALL = (1e-5, 3e-5, 1e-4, 3e-4)


def choose_rate(original: Mapping[str, float], trials: Mapping[float, Mapping[str, float]]) -> float:
    """The paper's rule: the highest rate at which `accuracy` (percent) falls by at most 2.5 points and the
    `classification_loss` does not rise. If no rate meets both, accuracy decides alone; if none meets that either, it is
    the lowest of the grid."""
    start = original["classification_loss"]
    accurate = [rate for rate, trial in trials.items() if original["accuracy"] - trial["accuracy"] <= ACCURACY_MAY_FALL]
    both = [rate for rate in accurate if trials[rate]["classification_loss"] <= start]
    return max(both or accurate, default=min(trials))


def default_rates(model: nn.Module, trainable: str = "all") -> tuple[float, ...]:
    """The grid for a model: the paper's above 15 million parameters, else, and for low-rank adapters, 1e-5 to 3e-4."""
    large = sum(parameter.numel() for parameter in model.parameters()) > LARGE
    return RATES_OF_LARGE if large and not trainable.startswith("lora") else RATES_OF_SMALL


def finetune_by_rule(
    train: Callable[..., Any], model: Any, samples: Any, out: Path | None, settings: TrainingSettings
) -> Any:
    """Trials of `train` (loop.py) for each rate of the grid; the one that the rule chooses is the result.

    Its metrics have `lr`, `rates` (the grid) and `trials` (see `table`). The same call goes on with what was interrupted.
    Raises UserError for rates that are none, a folder that is no such run's, and without validation samples that have
    labels, before any training.
    """
    setup = prepare(model, samples, settings)
    _check_validation(setup)
    grid = sorted(set(settings.rates or default_rates(setup.model, settings.trainable)))
    if not all(isinstance(rate, int | float) and 0 < rate < math.inf for rate in grid):
        raise UserError(f"rates must be numbers above 0, not {list(settings.rates or ())}")
    owner = None
    if out is not None:
        record = f"{TRIALS}/rates.json"
        recorded = {**settings.recorded(), "rates": grid}  # a call killed at its start leaves the folder of the record
        owner = OwnedFolder(out, f"{KIND} --lr auto", recorded, may_hold=(TRIALS,), record=record)
    with owner if owner is not None and _finished_rate(out) is None else nullcontext():
        finished = _finished_rate(out)
        if finished is None:
            return _best_of_trials(_Trials(train, model, samples, out, setup), grid)
    if owner is not None:
        owner.tidy()
    return train(model, samples, out, replace(settings, lr=finished))


def _finished_rate(out: Path | None) -> float | None:
    """The rate of the finished run in `out`, if it is finished."""
    result = None if out is None else out / "result.json"
    return json.loads(result.read_text())["lr"] if result is not None and result.exists() else None


class _Trials:
    """The runs at the rates of a grid: their metrics and weights, and what went wrong with others."""

    def __init__(self, train: Callable[..., Any], model: Any, samples: Any, out: Path | None, setup: Setup) -> None:
        self.train, self.model, self.samples, self.out, self.setup = train, model, samples, out, setup
        self.results: dict[float, Any] = {}
        self.weights: dict[float, dict[str, Tensor]] = {}  # without a folder, which would keep them
        self.failed: dict[float, str] = {}

    def run(self, rate: float) -> None:
        """The trial of a rate."""
        out = None if self.out is None else self.out / TRIALS / f"{rate:g}"
        model = copy.deepcopy(self.model)  # a module is trained in place
        try:
            result = self.train(model, self.samples, out, replace(self.setup.settings, lr=rate))
        except NonFiniteLossError as error:
            self.failed[rate] = str(error)
            self.say(self.failed[rate])
            return
        self.results[rate] = result
        if out is None:
            self.weights[rate] = {name: value.cpu().clone() for name, value in result.model.state_dict().items()}

    def say(self, text: str) -> None:
        """Tell the user, once and not in every process."""
        if self.setup.settings.progress and self.setup.accelerator.is_main_process:
            terminal.remark(text)


def _best_of_trials(trials: _Trials, grid: list[float]) -> Any:
    """The result of the trial that the rule chooses, its weights in the model that was given."""
    for number, rate in enumerate(grid, 1):
        trials.say(f"Trial {number} of {len(grid)}: learning rate {rate:g}")
        trials.run(rate)
    if not trials.results:
        raise UserError(f"the loss became infinite at every rate of {grid}: give lower ones (rates)")
    metrics = {rate: result.metrics for rate, result in trials.results.items()}
    original = _figures(next(iter(metrics.values()))["before"])
    figures = {rate: _figures(trial["after"]) for rate, trial in metrics.items()}
    chosen = choose_rate(original, figures)
    told = {"lr": chosen, "rates": grid, "trials": table(original, figures, chosen, trials.failed)}
    trials.say(f"Learning rate {chosen:g}, by the rule on the validation samples")
    result, out, model = trials.results[chosen], trials.out, trials.setup.model
    if out is None:
        model.load_state_dict(trials.weights[chosen])
        return result._replace(model=model, metrics={**result.metrics, **told})
    if trials.setup.accelerator.is_main_process:
        _publish(result.out, out, told)
    trials.setup.accelerator.wait_for_everyone()
    restore(model, out / "best")
    published = json.loads((out / "result.json").read_text())
    return result._replace(model=model, metrics=published, checkpoint=out / "best", out=out)


def table(
    original: Mapping[str, float],
    trials: Mapping[float, Mapping[str, float]],
    chosen: float,
    failed: Mapping[float, str] | None = None,
) -> list[dict[str, Any]]:
    """A row for each rate, lowest first: lr, accuracy (percent) and classification loss at the best epoch, how much they
    changed, whether the rule allows both, whether it is the chosen one; for a trial that failed, why."""
    rows: list[dict[str, Any]] = [{"lr": rate, "failed": why, "chosen": False} for rate, why in (failed or {}).items()]
    for rate, trial in trials.items():
        change = {f"{name}_change": trial[name] - original[name] for name in original}
        allowed = {
            "keeps_accuracy": change["accuracy_change"] >= -ACCURACY_MAY_FALL,
            "loss_does_not_rise": change["classification_loss_change"] <= 0,
        }
        rows.append({"lr": rate, **trial, **change, **allowed, "chosen": rate == chosen})
    return sorted(rows, key=lambda row: row["lr"])


def _figures(measured: Mapping[str, float]) -> dict[str, float]:
    """What the rule looks at."""
    return {"accuracy": 100 * measured["accuracy"], "classification_loss": measured["classification_loss"]}


def _check_validation(setup: Setup) -> None:
    """Raise UserError unless there are validation samples that have labels."""
    held_out = setup.validation
    if held_out is None:
        raise UserError("lr='auto' chooses by validation samples, and there are none: give validation, or a rate")
    unlabelled = [row.name for row in held_out.rows if row.label < 0]
    if unlabelled:
        raise UserError(
            f"lr='auto' needs the labels of the validation samples, and {len(unlabelled)} have none "
            f"({unlabelled[0]}{', ...' if len(unlabelled) > 1 else ''}): give them, or a rate"
        )


def _publish(trial: Path, out: Path, told: Mapping[str, Any]) -> None:
    """Copy a finished trial's files to the run's folder, those that are not there yet; its result, with the table of
    trials, last."""
    for source in sorted(path for path in trial.rglob("*") if path.is_file() and path.name != "result.json"):
        target = out / source.relative_to(trial)
        if not target.exists():
            with source.open("rb") as opened:
                atomic_write(target, lambda file, opened=opened: shutil.copyfileobj(opened, file))  # type: ignore[misc]
    result = {**json.loads((trial / "result.json").read_text()), **told}
    atomic_write(out / "result.json", json.dumps(result, indent=2) + "\n")
