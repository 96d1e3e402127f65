"""Fine-tuning, one loop for all methods, to be read from top to bottom.

A method (methods.py) says what is minimised and how samples are altered; everything else is here. What happens in a
step depends on the arguments, the samples and the number of the step alone, so that a run that was killed and is
started again by the same call goes on from its last state (runfolder.py) and ends with the same weights.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from relevit.errors import UserError
from relevit.models.attention import token_layout, unsupported_reason
from relevit.models.checkpoints import WEIGHTS, checkpoint_config, fill, read_weights, save_checkpoint
from relevit.models.loading import data_config, load
from relevit.models.view import EvaluationView, TrainingView
from relevit.models.working import learning
from relevit.training.batches import Items, Plan, altered_by, loader, seed_from
from relevit.training.display import Display
from relevit.training.interruption import Interruption
from relevit.training.learning_rate import finetune_by_rule
from relevit.training.methods import get_method, settings
from relevit.training.monitor import check_finite, collapse_warning
from relevit.training.previews import Previews
from relevit.training.run_folder import RunFolder, initial_fingerprint
from relevit.training.samples import gather, split_rows
from relevit.training.settings import (
    NOT_RECORDED,
    check_arguments,
    check_explainer,
    make_accelerator,
    tensorboard_writer,
    to_board,
)
from relevit.training.step import (
    MAP_MEASURES,
    VALIDATION_MEASURES,
    Tally,
    forward,
    measures,
    share_gradients,
    validation_pass,
)
from relevit.training.terms import total
from relevit.training.trainable import Trained, check_trainable
from relevit.versions import versions


class FinetuneResult(NamedTuple):
    """A finished run: the model with its best weights, metrics, the best checkpoint's folder, the run's folder."""

    model: nn.Module
    metrics: dict[str, Any]
    checkpoint: Path | None
    out: Path | None


@dataclass
class Position:
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


def finetune(
    model: nn.Module | str | os.PathLike[str],
    samples: Any,
    out: str | os.PathLike[str] | None,
    *,
    method: str = "relevance",
    explainer: str = "gae",
    trainable: str = "all",
    validation: Any = None,
    masks: str | os.PathLike[str] | None = None,
    validation_masks: str | os.PathLike[str] | None = None,
    ignore: str | os.PathLike[str] | None = None,
    manifest: str | os.PathLike[str] | None = None,
    epochs: int = 50,
    batch_size: int = 8,
    lr: float | Literal["auto"] = 3e-6,
    rates: Sequence[float] | None = None,
    weight_decay: float = 1e-4,
    lr_decay: float = 0.85,
    lr_decay_epochs: int = 2,
    temperature: float = 1.0,
    lambda_bg: float = 2.0,
    lambda_fg: float = 0.3,
    lambda_relevance: float | None = None,
    lambda_classification: float | None = None,
    options: Mapping[str, float] | None = None,
    target: Literal["label", "predicted"] = "label",
    second_order: bool = False,
    accumulation: int = 1,
    mixed_precision: Literal["no", "bf16", "fp16"] = "no",
    seed: int = 0,
    max_steps: int | None = None,
    resize: float = 256 / 224,
    flip: float = 0.5,
    protocol: Literal["standard", "paper"] = "standard",
    validation_every: int = 1,
    validation_batch_size: int | None = None,
    skip_bad: bool = False,
    class_map: str | os.PathLike[str] | None = None,
    previews: int = 4,
    workers: int = 0,
    tensorboard: bool = True,
    progress: bool = True,
    checkpoint_seconds: float = 30.0,
) -> FinetuneResult:
    """Fine-tune a model by its relevance maps, or by another method of METHODS; the defaults are the paper's for ViT-B.

    model: a module, trained in place, or what `relevit.load` takes. samples: a folder of class folders with images
    (masks by the same relative name in the folder `masks`, or the images' own alpha), or a data set of (image, mask,
    label[, ignore[, name]]). out: the run's folder. The same call goes on with an interrupted run and returns the
    result of a finished one. None: nothing is written at all, and nothing can be resumed.

    validation: a folder (masks in `validation_masks`, or in `masks`) or a data set, for the choice of the best epoch; a
    fraction or number of classes to hold out; None holds out a fifth of a folder's classes (of its samples, where it
    has fewer than ten classes) and nothing of a data set, whose last epoch then counts as the best. It is measured
    every `validation_every` epochs. ignore: a folder as `masks`, of pixels that count for neither side. manifest: a CSV
    (data.manifest) that names the samples of the folder for training and validation, in place of `validation`.

    explainer: whose maps, a name in `explainers.EXPLAINERS` that trains. trainable: which weights move: "all",
    "attention", "last:K" (the last K blocks), or "lora:R" (low-rank adapters of rank R on the attention's projections,
    merged into the checkpoints; needs peft); see trainable.py.

    target: whose map, that of the label's class or, label-free, of the predicted one. lr is multiplied by `lr_decay`
    every `lr_decay_epochs` epochs; "auto" makes a run for each of `rates` (None: a grid for the model's size) and keeps
    the one that the paper's rule chooses on the validation samples (rates.py). A step takes batch_size * accumulation samples in each process. lambda_relevance and
    lambda_classification: None for the method's own, 0.8 and 0.2 in the paper. options: further numbers of the method,
    such as swap_probability. resize, flip: see transforms.TrainingView. max_steps: stop after so many optimiser steps.
    checkpoint_seconds: how often the state is saved between the ends of epochs.

    The model trains in training mode, with dropout as it was built. Afterwards modes and device are as before, the
    weights are those of the best epoch. Raises UserError for unusable arguments, samples or folders before training
    starts, and NonFiniteLossError (a UserError) for a loss or a gradient that is not finite. Ctrl-C saves the state and
    stops.
    """
    given = dict(locals())
    arguments = {key: value for key, value in given.items() if key not in NOT_RECORDED}
    if lr == "auto":
        check_arguments({**arguments, "lr": 0.0})
        settings(method, arguments, options)
        return finetune_by_rule(finetune, given)
    check_arguments(arguments)
    chosen = get_method(method)
    numbers = settings(method, arguments, options)
    target = "predicted" if chosen.target == "predicted" else target
    if chosen.needs_maps:
        second_order = check_explainer(explainer, second_order or chosen.second_order)
    accelerator = make_accelerator(mixed_precision)
    device, main = accelerator.device, accelerator.is_main_process

    # The model and the samples. Everything is checked here, before the first step.
    net = model if isinstance(model, nn.Module) else load(model, protocol=protocol)[0]
    reason = unsupported_reason(net)
    if chosen.needs_maps and reason is not None:
        raise UserError(f"method {method!r} needs relevance maps: {reason}")
    check_trainable(net, trainable)
    config = data_config(net, protocol)
    checked, checked_validation = gather(
        samples,
        validation,
        net,
        needs_labels=chosen.needs_labels or (chosen.needs_maps and target == "label"),
        masks=masks,
        validation_masks=validation_masks,
        ignore=ignore,
        manifest=manifest,
        class_map=class_map,
        skip_bad=skip_bad,
    )

    view, training_view = EvaluationView(config), TrainingView(config, resize, flip)

    # The run's folder, and what an earlier call has left in it.
    folder, state, position = None, None, Position()
    if out is not None:
        checkpoint_config(net)  # raises if the model could not be saved
        identity = {
            "initial_weights": initial_fingerprint(Path(out), net.state_dict()),
            "samples": checked.fingerprint,
            "validation_samples": checked_validation.fingerprint if checked_validation else None,
            "processes": accelerator.num_processes,
        }
        about = {"model": str(model) if not isinstance(model, nn.Module) else type(model).__name__, **versions()}
        settled = {"target": target, "second_order": second_order}
        folder = RunFolder(Path(out), {**arguments, **numbers, **settled, **identity, "about": about})
        if folder.result is not None:
            if main:
                folder.tidy()
            fill(net, read_weights(folder.path / "best" / WEIGHTS), folder.path)
            return FinetuneResult(net, folder.result, folder.path / "best", folder.path)

    # Views of the samples, their order, the optimiser.
    alter, other = (altered_by(of, checked.samples, numbers) for of in (chosen.view, chosen.other))
    items = Items(checked.samples, training_view, seed, alter, other)
    held_out = None
    if checked_validation is not None:
        held_out = Items(
            checked_validation.samples,
            lambda image, mask, ignore, _: view.with_mask(image, mask, ignore),
            other=altered_by(chosen.other, checked_validation.samples, numbers),
        )
    processes = accelerator.num_processes, accelerator.process_index
    plan = Plan(len(items), batch_size, seed, accumulation, *processes, shuffle=chosen.shuffle)
    steps = min(plan.steps_per_epoch * epochs, max_steps or 10**12)
    height, width = items[0, 0][0].shape[-2:]
    patches = math.prod(token_layout(net, height, width).grid) if reason is None else None
    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(folder.owned)
            state = folder.read_state()
            accelerator.wait_for_everyone()
            if main:
                folder.write_split(split_rows(checked, checked_validation))
        stack.enter_context(learning(net))
        reference = copy.deepcopy(net).requires_grad_(False).eval().to(device) if chosen.reference else None
        trained = stack.enter_context(Trained(net, trainable, seed))
        parameters = trained.parameters
        net.to(device)
        optimizer = accelerator.prepare(torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay))
        if state is not None:
            net.load_state_dict(state["model"])
            if reference is not None:  # the model that was given may be half trained
                reference.load_state_dict(state["reference"])
            optimizer.load_state_dict(state["optimizer"])
            if accelerator.scaler is not None:
                accelerator.scaler.load_state_dict(state["scaler"])
            position = Position(**state["position"])

        def current_state() -> dict[str, Any]:
            scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
            weights = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler}
            known = {} if reference is None else {"reference": reference.state_dict()}
            return {**weights, **known, "position": asdict(position)}

        def validate() -> dict[str, float]:
            if held_out is None:
                return {}
            return validation_pass(
                net,
                held_out,
                chosen,
                numbers,
                accelerator,
                target=target,
                patches=patches,
                batch_size=validation_batch_size or batch_size,
                workers=workers,
                step=position.step,
                explainer=explainer,
                reference=reference,
            )

        writes = folder is not None and main
        display = stack.enter_context(Display(steps, position.step, progress and main))
        interruption = stack.enter_context(Interruption())
        step_log = epoch_log = board = None
        if folder is not None and main:
            step_log = folder.log("steps.csv", "step", position.step)
            epoch_log = folder.log("epochs.csv", "epoch", position.epoch if position.before is not None else -1)
            stack.callback(folder.close)
            folder.plan_state(checkpoint_seconds)
            if tensorboard:
                board = stack.enter_context(tensorboard_writer(folder.path / "tensorboard", position.step))
        pictures = Previews(folder.path / "previews" if writes and folder else None, held_out, previews, view, target)
        best_weights: dict[str, torch.Tensor] = {}
        clock = time.monotonic()

        # Before training: what the original model does.
        if position.before is None:
            position.before = validate()
            pictures.before(net, device)
            if epoch_log is not None and position.before:
                only_measured = VALIDATION_MEASURES + (() if chosen.needs_maps else MAP_MEASURES)
                nothing_yet = {n: "" for n in position.before if n not in only_measured}
                epoch_log.write({"epoch": 0, "step": 0, "lr": "", **_columns(nothing_yet, position.before)})
        if position.before:
            display.epoch(0, epochs, position.before)

        batches = iter(
            loader(
                items,
                lambda: plan.batches(epochs, position.epoch, position.step_in_epoch),
                workers,
                pinned=device.type == "cuda",
            )
        )
        while position.epoch < epochs and (position.step < steps or position.step_in_epoch > 0):
            rate = lr * lr_decay ** (position.epoch // lr_decay_epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            tally = Tally(position.sums, position.count)
            net.train()
            for step in plan.epoch(position.epoch, position.step_in_epoch):
                if position.step == steps:
                    break
                # Dropout draws from the global generator: seeded by the step's number, it needs no state to be kept.
                torch.manual_seed(seed_from(seed, position.step, accelerator.process_index))
                began, step_tally, names = time.monotonic(), Tally(), []
                for count in step.counts:
                    batch = next(batches).to(device)
                    names += batch.names
                    outputs = forward(
                        net,
                        batch,
                        accelerator,
                        chosen,
                        numbers,
                        with_maps=chosen.needs_maps,
                        target=target,
                        second_order=second_order,
                        explainer=explainer,
                        reference=reference,
                    )
                    terms = chosen.loss(outputs, numbers)
                    loss = total(terms)
                    accelerator.backward(loss * (count / step.samples))  # a short last batch keeps its samples' weight
                    values = measures(outputs, terms, loss, patches)
                    check_finite(position.step + 1, values, batch.names, outputs.logits, outputs.maps)
                    step_tally.add(values, count)
                share_gradients(accelerator, parameters)
                if accelerator.scaler is not None:
                    accelerator.unscale_gradients(optimizer)
                norm = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
                if accelerator.scaler is None:  # a scaler skips the step by itself and tries a smaller scale
                    check_finite(position.step + 1, {"gradient": norm}, names)
                optimizer.step()
                optimizer.zero_grad()

                step_tally = step_tally.over_processes(accelerator)
                values = {**step_tally.means(), "gradient_norm": norm}
                tally.add(step_tally.means(), step_tally.count)
                position.step += 1
                position.step_in_epoch += 1
                position.sums, position.count = tally.sums, tally.count
                position.seconds, clock = position.seconds + time.monotonic() - clock, time.monotonic()
                display.step(position.step, position.epoch + 1, values)
                if step_log is not None:
                    row = {"step": position.step, "epoch": position.epoch + 1, "lr": rate, **values}
                    step_log.write({**row, "seconds": time.monotonic() - began})
                if board is not None:
                    to_board(board, "train", {**values, "lr": rate}, position.step)
                if writes and folder is not None and (folder.state_is_due or interruption.requested):
                    folder.write_state(current_state(), checkpoint_seconds)
                if interruption.requested:
                    again = f"the same call goes on from there ({out})" if folder is not None else "nothing was written"
                    display.say(f"Interrupted after step {position.step}: {again}.")
                    raise KeyboardInterrupt

            # The end of an epoch: measure, keep the best and the last, and only then the state that refers to them.
            training = tally.means()
            position.epoch, position.step_in_epoch, position.sums, position.count = position.epoch + 1, 0, {}, 0
            last = position.epoch == epochs or position.step == steps
            measured = validate() if position.epoch % validation_every == 0 or last else {}
            position.history.append(
                {"epoch": position.epoch, "step": position.step, "lr": rate, **_columns(training, measured)}
            )
            warning = collapse_warning(position.epoch, training.get("collapsed", 0.0))
            if warning:
                position.warnings.append(warning)
                display.say(warning, style="bold red")
            display.epoch(position.epoch, epochs, measured or training)
            if epoch_log is not None:
                epoch_log.write(position.history[-1])
            if board is not None:
                to_board(board, "validation", measured, position.step)
            if held_out is None or (measured and measured["loss"] <= position.best_loss):  # the later one on a tie
                position.best_epoch, position.best_loss = position.epoch, measured.get("loss", math.inf)
                with trained.merged():
                    if folder is None:
                        best_weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
                    elif main:
                        save_checkpoint(folder.path / "best", net, extra=position.history[-1], data_config=config)
            if writes and folder is not None:
                with trained.merged():
                    save_checkpoint(folder.path / "last", net, extra=position.history[-1], data_config=config)
                folder.write_state(current_state(), checkpoint_seconds)

        # The best weights, the pictures, and the mark that the run is finished.
        accelerator.wait_for_everyone()
        trained.remove()
        if folder is not None:
            fill(net, read_weights(folder.path / "best" / WEIGHTS), folder.path)
        else:
            net.load_state_dict(best_weights)
        pictures.after(net, device)
        metrics = _metrics(position)
        if writes and folder is not None:
            folder.finish(metrics)
        return FinetuneResult(net, metrics, folder.path / "best" if folder else None, folder.path if folder else None)


def _columns(training: Mapping[str, Any], validation: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured in an epoch under the names of the columns of epochs.csv."""
    named = [("train", training), ("validation", validation)]
    return {f"{kind}_{name}": value for kind, values in named for name, value in values.items()}


def _metrics(position: Position) -> dict[str, Any]:
    best = position.history[position.best_epoch - 1]
    last = {name.removeprefix("validation_"): v for name, v in best.items() if name.startswith("validation_")}
    return {
        "before": position.before,
        "after": last,
        "best_epoch": position.best_epoch,
        "epochs": position.epoch,
        "steps": position.step,
        "seconds": position.seconds,
        "warnings": position.warnings,
        "history": position.history,
    }
