"""The learning rate by the paper's rule, `finetune(lr="auto")`: a run for each rate of a grid, the validation samples decide.

The rule: the highest rate at which validation accuracy falls by at most 2.5 points and the classification loss (Eq. 4) does
not rise. The paper's grid for its models is 5e-7 to 5e-6; a small model wants higher ones, and so do low-rank adapters.
A trial is a run of its own, in RUN/trials/RATE, and the one that is chosen becomes the run.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from relevit.errors import UserError
from relevit.files import atomic_write
from relevit.folders import OwnedFolder
from relevit.models.loading import load
from relevit.training.monitor import NonFiniteLossError
from relevit.training.run_folder import KIND, TRIALS
from relevit.training.samples import gather
from relevit.training.settings import make_accelerator

ACCURACY_MAY_FALL = 2.5  # points
LARGE = 15_000_000  # parameters; the paper's smallest models have 22 million
RATES_OF_LARGE = (5e-7, 1e-6, 2e-6, 3e-6, 5e-6)
RATES_OF_SMALL = (1e-5, 3e-5, 1e-4, 3e-4)


def choose_rate(original: Mapping[str, float], trials: Mapping[float, Mapping[str, float]]) -> float:
    """The paper's rule: the highest rate at which `accuracy` (percent) falls by at most 2.5 points and the
    `classification_loss` does not rise. If no rate meets both, accuracy decides alone; if none meets that either, it is
    the lowest of the grid."""
    start = original["classification_loss"]
    accurate = [rate for rate, own in trials.items() if original["accuracy"] - own["accuracy"] <= ACCURACY_MAY_FALL]
    both = [rate for rate in accurate if trials[rate]["classification_loss"] <= start]
    return max(both or accurate, default=min(trials))


def default_rates(model: nn.Module, trainable: str = "all") -> tuple[float, ...]:
    """The grid for a model: the paper's above 15 million parameters, else, and for low-rank adapters, 1e-5 to 3e-4."""
    large = sum(parameter.numel() for parameter in model.parameters()) > LARGE
    return RATES_OF_LARGE if large and not trainable.startswith("lora") else RATES_OF_SMALL


def finetune_by_rule(train: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Trials of `train` (training.finetune) with `arguments`, and the result of the one that the rule chooses.

    Its metrics have `lr`, `rates` (the grid) and `trials` (see `table`). The same call goes on with what was interrupted.
    Raises UserError for rates that are none, a folder that is no such run's, and without validation samples that have
    labels, before any training.
    """
    given = {**arguments}
    model, rates = given.pop("model"), given.pop("rates")
    net = model if isinstance(model, nn.Module) else load(model, protocol=given["protocol"])[0]
    grid = sorted(set(rates or default_rates(net, given["trainable"])))
    if not all(isinstance(rate, int | float) and 0 < rate < math.inf for rate in grid):
        raise UserError(f"rates must be numbers above 0, not {list(rates)}")
    out = None if given["out"] is None else Path(given["out"])
    folder = None
    if out is not None:
        folder = OwnedFolder(out, f"{KIND} --lr auto", {"rates": grid}, record=f"{TRIALS}/rates.json")
        if folder.earlier is not None and (out / "result.json").exists():
            folder.tidy()
            return train(model, **{**given, "lr": json.loads((out / "result.json").read_text())["lr"]})
    _check_validation(net, given)
    with folder or nullcontext():
        chosen, result = _by_trials(train, model, net, grid, given)
    return result if out is None else train(model, **{**given, "lr": chosen})


def _by_trials(
    train: Callable[..., Any],
    model: nn.Module | str,
    net: nn.Module,
    grid: Sequence[float],
    given: Mapping[str, Any],
) -> tuple[float, Any]:
    """The rate that the rule chooses, and the result of its trial; with a folder, the trial's files are then the run's."""
    is_module = isinstance(model, nn.Module)
    out = None if given["out"] is None else Path(given["out"])
    results: dict[float, Any] = {}
    weights: dict[float, dict[str, Any]] = {}
    failed: dict[float, str] = {}
    for number, rate in enumerate(grid, 1):
        where = None if out is None else out / TRIALS / f"{rate:g}"
        _say(given, f"Trial {number} of {len(grid)}: learning rate {rate:g}")
        try:
            result = train(copy.deepcopy(net) if is_module else model, **{**given, "lr": rate, "out": where})
        except NonFiniteLossError as error:
            failed[rate] = str(error)
            _say(given, failed[rate])
            continue
        results[rate] = result.metrics
        if out is None:
            weights[rate] = {name: value.cpu().clone() for name, value in result.model.state_dict().items()}
    if not results:
        raise UserError(f"the loss became infinite at every rate of {grid}: give lower ones (rates)")
    original, trials = _figures(results)
    chosen = choose_rate(original, trials)
    told = {"lr": chosen, "rates": grid, "trials": table(original, trials, chosen, failed)}
    _say(given, f"Learning rate {chosen:g}, by the rule on the validation samples")
    if out is None:
        net.load_state_dict(weights[chosen])
        return chosen, result._replace(model=net, metrics={**results[chosen], **told})
    accelerator = make_accelerator(given["mixed_precision"])
    if accelerator.is_main_process:
        _publish(out / TRIALS / f"{chosen:g}", out, told)
    accelerator.wait_for_everyone()
    return chosen, result


def table(
    original: Mapping[str, float],
    trials: Mapping[float, Mapping[str, float]],
    chosen: float,
    failed: Mapping[float, str] | None = None,
) -> list[dict[str, Any]]:
    """A row for each rate, lowest first: lr, accuracy (percent) and classification loss at the best epoch, how much they
    changed, whether the rule allows both, whether it is the chosen one; for a trial that failed, why."""
    rows: list[dict[str, Any]] = [{"lr": rate, "failed": why, "chosen": False} for rate, why in (failed or {}).items()]
    for rate, own in trials.items():
        change = {f"{name}_change": own[name] - original[name] for name in original}
        allowed = {
            "keeps_accuracy": change["accuracy_change"] >= -ACCURACY_MAY_FALL,
            "loss_does_not_rise": change["classification_loss_change"] <= 0,
        }
        rows.append({"lr": rate, **own, **change, **allowed, "chosen": rate == chosen})
    return sorted(rows, key=lambda row: row["lr"])


def _figures(results: Mapping[float, Mapping[str, Any]]) -> tuple[dict[str, float], dict[float, dict[str, float]]]:
    """What the rule looks at, of the original and of every trial at its best epoch."""

    def of(measured: Mapping[str, float]) -> dict[str, float]:
        return {
            "accuracy": 100 * measured["accuracy"],
            "classification_loss": measured["classification_loss"],
        }

    trials = {rate: of(metrics["after"]) for rate, metrics in results.items()}
    return of(next(iter(results.values()))["before"]), trials


def _check_validation(net: nn.Module, given: Mapping[str, Any]) -> None:
    names = "masks validation_masks ignore manifest class_map skip_bad".split()
    _, held_out = gather(
        given["samples"], given["validation"], net, needs_labels=False, **{name: given[name] for name in names}
    )
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
    if (out / "result.json").exists():
        return
    for source in sorted(path for path in trial.rglob("*") if path.is_file() and path.name != "result.json"):
        target = out / source.relative_to(trial)
        if not target.exists():
            with source.open("rb") as opened:
                atomic_write(target, lambda file, opened=opened: shutil.copyfileobj(opened, file))  # type: ignore[misc]
    result = {**json.loads((trial / "result.json").read_text()), **told}
    atomic_write(out / "result.json", json.dumps(result, indent=2) + "\n")


def _say(given: Mapping[str, Any], text: str) -> None:
    if given["progress"] and make_accelerator(given["mixed_precision"]).is_main_process:
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(text, highlight=False, markup=False)
