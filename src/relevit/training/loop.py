"""Fine-tuning, one loop for all methods, to be read from top to bottom: prepare, epochs with validations, finish.

A method (methods.py) says what is minimised and how samples are altered; everything else is here. What happens in a
step depends on the settings, the samples and the number of the step alone, so that a run that was killed and is
started again by the same call goes on from its last state (run_folder.py) and ends with the same weights.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from relevit.models.families import of_module
from relevit.models.recomputation import recomputing
from relevit.models.saving import restore, save_checkpoint
from relevit.models.working import compiled, learning
from relevit.training.accelerator import share_gradients
from relevit.training.batches import Batch, Items, StepBatches, loader, seed_from
from relevit.training.interruption import Interruption
from relevit.training.learning_rate import finetune_by_rule
from relevit.training.logs import Logs, epoch_columns
from relevit.training.monitor import check_finite, collapse_warning
from relevit.training.prepare import Setup, prepare
from relevit.training.previews import Previews
from relevit.training.run_folder import RunFolder
from relevit.training.samples import split_rows
from relevit.training.settings import TrainingSettings
from relevit.training.step import MAP_FIGURES, VALIDATION_FIGURES, Step, Tally
from relevit.training.trackers import trackers_of
from relevit.training.trainable import TrainableWeights


class FinetuneResult(NamedTuple):
    """A finished run: the model with its best weights, metrics, the best checkpoint's folder, the run's folder."""

    model: nn.Module
    metrics: dict[str, Any]
    checkpoint: Path | None
    out: Path | None


@dataclass
class RunState:
    """Where a run stands: all that a step depends on beside weights and optimiser, and what it has found so far."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of the epoch so far
    count: int = 0
    before: dict[str, float] | None = None
    best_epoch: int = 0
    best_loss: float = math.inf
    history: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def metrics(self) -> dict[str, Any]:
        """What the run has found, for its result."""
        best = self.history[self.best_epoch - 1]
        validation = {
            name.removeprefix("validation_"): value for name, value in best.items() if name.startswith("validation_")
        }
        return {
            "before": self.before,
            "after": validation,
            "best_epoch": self.best_epoch,
            "epochs": self.epoch,
            "steps": self.step,
            "seconds": self.seconds,
            "warnings": self.warnings,
            "history": self.history,
        }


def finetune(
    model: nn.Module | str | os.PathLike[str], samples: Any, out: str | os.PathLike[str] | None, **keywords: Any
) -> FinetuneResult:
    """`relevit.finetune` for keywords that are the fields of `TrainingSettings`; there and in api/finetune.py they are told.

    The model trains in training mode, with dropout as it was built, a module in place; afterwards modes and device are as
    before, the weights are those of the best epoch. Ctrl-C saves the state and stops.
    """
    settings = TrainingSettings(**keywords)
    settings.check()
    place = None if out is None else Path(out)
    if settings.lr == "auto":
        return finetune_by_rule(train, model, samples, place, settings)
    return train(model, samples, place, settings)


def train(
    model: nn.Module | str | os.PathLike[str], samples: Any, out: Path | None, settings: TrainingSettings
) -> FinetuneResult:
    """A run at one learning rate."""
    setup = prepare(model, samples, settings)
    if out is None:
        return _trained(setup, None, None)
    folder, accelerator = RunFolder(out, setup.record(out)), setup.accelerator
    accelerator.wait_for_everyone()  # all have looked at the folder as it was
    if folder.result is None:
        with folder:
            accelerator.wait_for_everyone()  # the first process holds the folder now
            result, saved = folder.result, folder.read_state()
            accelerator.wait_for_everyone()  # all have read it
            if result is None:  # it still is
                if accelerator.is_main_process:
                    folder.write_split(split_rows(setup.training, setup.validation))
                return _trained(setup, folder, saved)
    if accelerator.is_main_process:
        folder.tidy()
    restore(setup.model, folder.best)
    return FinetuneResult(setup.model, folder.result or {}, folder.best, out)


def _trained(setup: Setup, folder: RunFolder | None, saved: dict[str, Any] | None) -> FinetuneResult:
    """The phases of a run that is not finished, from the beginning or from a saved state."""
    with _started(setup, folder, saved) as run:
        if run.state.before is None:
            _measure_original(run)
        if run.state.before:
            run.logs.say_epoch(0, setup.settings.epochs, run.state.before)
        batches = _batches(run)
        while run.goes_on:
            training = _train_epoch(run, batches)
            _end_epoch(run, training)
        return _finish(run)


@dataclass
class Run:
    """A run at work.

    Attributes:
        step: the method at work on the model, now on its device.
        folder: None where nothing is written; only the main process writes.
        steps: how many optimiser steps there are in all.
        best_weights: those of the best epoch where there is no folder.
        clock: when the latest step ended.
    """

    setup: Setup
    step: Step
    state: RunState
    weights: TrainableWeights
    optimizer: Any
    folder: RunFolder | None
    logs: Logs
    previews: Previews
    interruption: Interruption
    items: Items
    held_out: Items | None
    steps: int
    clock: float
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def goes_on(self) -> bool:
        """Whether an epoch is left; one of which all steps are done but not its end counts."""
        state = self.state
        return state.epoch < self.setup.settings.epochs and (state.step < self.steps or state.step_in_epoch > 0)

    @property
    def writes(self) -> bool:
        """Whether this process writes to the folder."""
        return self.folder is not None and self.setup.accelerator.is_main_process

    def validate(self) -> dict[str, float]:
        """The figures of the validation samples; empty where there are none."""
        if self.held_out is None:
            return {}
        settings = self.setup.settings
        batch_size = settings.validation_batch_size or settings.batch_size
        return self.step.validate(self.held_out, batch_size, settings.workers, self.state.step)

    def save_state(self) -> None:
        """Write all that the run goes on from."""
        assert self.folder is not None
        scaler, reference = self.setup.accelerator.scaler, self.step.reference
        state = {
            "model": self.setup.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            **({} if reference is None else {"reference": reference.state_dict()}),
            "position": asdict(self.state),
        }
        self.folder.write_state(state, self.setup.settings.checkpoint_seconds)

    def load_state(self, saved: dict[str, Any]) -> None:
        """Go back to what `save_state` wrote, the progress aside."""
        self.setup.model.load_state_dict(saved["model"])
        if self.step.reference is not None:  # the model that was given may be half trained
            self.step.reference.load_state_dict(saved["reference"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.setup.accelerator.scaler is not None:
            self.setup.accelerator.scaler.load_state_dict(saved["scaler"])


@contextmanager
def _started(setup: Setup, folder: RunFolder | None, saved: dict[str, Any] | None) -> Iterator[Run]:
    """The model on its device with an optimiser, where it was saved or at the beginning; as before when the context ends."""
    settings, accelerator, model = setup.settings, setup.accelerator, setup.model
    state = RunState(**saved["position"]) if saved is not None else RunState()
    path = folder.path if folder is not None and accelerator.is_main_process else None
    items, held_out = setup.items(), setup.held_out()
    steps = min(setup.plan().steps_per_epoch * settings.epochs, settings.max_steps or 10**12)
    with ExitStack() as stack:
        stack.enter_context(learning(model))
        reference = None
        if setup.step.method.reference:
            reference = copy.deepcopy(model).requires_grad_(False).eval().to(accelerator.device)
        if settings.compile:
            stack.enter_context(compiled(model))
        if settings.gradient_checkpointing:
            stack.enter_context(recomputing(of_module(model).blocks(model)))
        weights = stack.enter_context(TrainableWeights(model, settings.trainable, settings.seed))
        model.to(accelerator.device)
        optimizer = torch.optim.AdamW(weights.parameters, lr=settings.rate_of(0), weight_decay=settings.weight_decay)
        logs = Logs(
            path,
            steps=steps,
            step=state.step,
            epoch=state.epoch if state.before is not None else -1,
            shown=settings.progress and accelerator.is_main_process,
            track=trackers_of(settings.track),
            about={**settings.recorded(), **setup.step.numbers},
        )
        run = Run(
            setup=setup,
            step=replace(setup.step, reference=reference),
            state=state,
            weights=weights,
            optimizer=accelerator.prepare(optimizer),
            folder=folder,
            logs=stack.enter_context(logs),
            previews=Previews(path and path / "previews", held_out, settings.previews, setup.view, setup.step.target),
            interruption=stack.enter_context(Interruption()),
            items=items,
            held_out=held_out,
            steps=steps,
            clock=time.monotonic(),
        )
        if saved is not None:
            run.load_state(saved)
        if folder is not None:
            folder.plan_state(settings.checkpoint_seconds)
        yield run


def _measure_original(run: Run) -> None:
    """Before training: what the original model does."""
    before = run.state.before = run.validate()
    run.previews.before(run.setup.model, run.setup.accelerator.device)
    if before:
        only_validation = {*VALIDATION_FIGURES, *(() if run.step.method.needs_maps else MAP_FIGURES)}
        run.logs.before(before, frozenset(only_validation))


def _batches(run: Run) -> Iterator[Batch]:
    """The batches of all steps that are left."""
    setup, plan = run.setup, run.setup.plan()
    epochs, epoch, first = setup.settings.epochs, run.state.epoch, run.state.step_in_epoch
    pinned = setup.accelerator.device.type == "cuda"
    return iter(loader(run.items, lambda: plan.batches(epochs, epoch, first), setup.settings.workers, pinned))


def _train_epoch(run: Run, batches: Iterator[Batch]) -> dict[str, float]:
    """The steps of an epoch that are left; means of their figures over all its samples."""
    state, settings = run.state, run.setup.settings
    rate = settings.rate_of(state.epoch)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    tally = Tally(state.sums, state.count)
    run.setup.model.train()
    for planned in run.setup.plan().epoch(state.epoch, state.step_in_epoch):
        if state.step == run.steps:
            break
        began = time.monotonic()
        step_tally, norm = _take_step(run, planned, batches)
        tally.add(step_tally.means(), step_tally.count)
        state.step += 1
        state.step_in_epoch += 1
        state.sums, state.count = tally.sums, tally.count
        state.seconds, run.clock = state.seconds + time.monotonic() - run.clock, time.monotonic()
        figures = {**step_tally.means(), "gradient_norm": norm}
        run.logs.step(state.step, state.epoch + 1, rate, figures, time.monotonic() - began)
        if run.folder is not None and run.writes and (run.folder.state_is_due or run.interruption.requested):
            run.save_state()
        if run.interruption.requested:
            out = run.folder.path if run.folder is not None else None
            again = f"the same call goes on from there ({out})" if out is not None else "nothing was written"
            run.logs.say(f"Interrupted after step {state.step}: {again}.")
            raise KeyboardInterrupt
    return tally.means()


def _take_step(run: Run, planned: StepBatches, batches: Iterator[Batch]) -> tuple[Tally, float]:
    """An optimiser step: the figures of its samples in all processes, and the gradient's norm."""
    accelerator, parameters = run.setup.accelerator, run.weights.parameters
    # Dropout draws from the global generator: seeded by the step's number, it needs no state to be kept.
    torch.manual_seed(seed_from(run.setup.settings.seed, run.state.step, accelerator.process_index))
    tally, names = Tally(), list[str]()
    for count in planned.counts:
        batch = next(batches).to(accelerator.device)
        names += batch.names
        weight = count / planned.samples  # a short last batch keeps its samples' weight
        tally.add(run.step.learn(batch, weight, run.state.step + 1), count)
    share_gradients(accelerator, parameters)
    if accelerator.scaler is not None:
        accelerator.unscale_gradients(run.optimizer)
    total = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    norm = float(total)
    if accelerator.scaler is None:  # a scaler skips the step by itself and tries a smaller scale
        check_finite(run.state.step + 1, {"gradient": norm}, names)
    if run.setup.settings.max_grad_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, run.setup.settings.max_grad_norm, total)
    run.optimizer.step()
    run.optimizer.zero_grad()
    return tally.over_processes(accelerator), norm


def _end_epoch(run: Run, training: dict[str, float]) -> None:
    """The end of an epoch: measure, keep the best and the last, and only then the state that refers to them."""
    state, settings = run.state, run.setup.settings
    rate = settings.rate_of(state.epoch)
    state.epoch, state.step_in_epoch, state.sums, state.count = state.epoch + 1, 0, {}, 0
    is_last = state.epoch == settings.epochs or state.step == run.steps
    measured = run.validate() if state.epoch % settings.validation_every == 0 or is_last else {}
    row = {"epoch": state.epoch, "step": state.step, "lr": rate, **epoch_columns(training, measured)}
    state.history.append(row)
    warning = collapse_warning(state.epoch, training.get("collapsed", 0.0))
    if warning:
        state.warnings.append(warning)
        run.logs.say(warning)
    run.logs.epoch(row, settings.epochs, training, measured)
    is_best = run.held_out is None or (bool(measured) and measured["loss"] <= state.best_loss)  # the later on a tie
    if is_best:
        state.best_epoch, state.best_loss = state.epoch, measured.get("loss", math.inf)
    with run.weights.merged() as model:
        if run.folder is None and is_best:
            run.best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if run.folder is not None and run.writes:
            for checkpoint in (run.folder.best, run.folder.last) if is_best else (run.folder.last,):
                save_checkpoint(checkpoint, model, extra=row, data_config=run.setup.config)
    if run.writes:
        run.save_state()


def _finish(run: Run) -> FinetuneResult:
    """The best weights, the pictures, and the mark that the run is finished."""
    model, folder, accelerator = run.setup.model, run.folder, run.setup.accelerator
    accelerator.wait_for_everyone()  # the main process has written them
    run.weights.remove()
    if folder is None:
        model.load_state_dict(run.best_weights)
    else:
        restore(model, folder.best)
    run.previews.after(model, accelerator.device)
    metrics = run.state.metrics()
    if folder is not None and run.writes:
        folder.finish(metrics)
    if folder is None:
        return FinetuneResult(model, metrics, None, None)
    return FinetuneResult(model, metrics, folder.best, folder.path)
