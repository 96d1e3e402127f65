"""The first phase of a run: the model, the samples and the method, checked before anything is written or trained."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from relevit.errors import UserError
from relevit.explainers import EXPLAINERS
from relevit.models.attention import token_layout, unsupported_reason
from relevit.models.families.family import unwrap, wrapper_reason
from relevit.models.loading import data_config, load
from relevit.models.saving import check_saves
from relevit.models.view import EvaluationView, TrainingView
from relevit.training.accelerator import make_accelerator
from relevit.training.batches import CheckedSamples, Items, Plan, altered_by
from relevit.training.methods import METHODS, Method, get_method, numbers_of
from relevit.training.run_folder import initial_fingerprint
from relevit.training.samples import gather
from relevit.training.settings import TrainingSettings
from relevit.training.step import Step
from relevit.training.trackers import trackers_of
from relevit.training.trainable import check_trainable
from relevit.versions import versions


@dataclass(frozen=True)
class Setup:
    """What a run needs, checked.

    Attributes:
        settings: as given.
        about: the model as given, for people.
        step: the method at work on the model, which is where and as it was given.
        config: the preprocessing that belongs to the trained weights (`data_config`).
        training, validation: the samples; validation None where none are held out.
    """

    settings: TrainingSettings
    about: str
    step: Step
    config: dict[str, Any]
    training: CheckedSamples
    validation: CheckedSamples | None

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.step.model

    @property
    def accelerator(self) -> Accelerator:
        """Devices and processes."""
        return self.step.accelerator

    @property
    def view(self) -> EvaluationView:
        """How samples are seen in validation."""
        return EvaluationView(self.config)

    def items(self) -> Items:
        """The samples as training sees them."""
        settings, method = self.settings, self.step.method
        samples, numbers = self.training.samples, self.step.numbers
        alter, other = (altered_by(change, samples, numbers) for change in (method.alteration, method.other))
        return Items(samples, TrainingView(self.config, settings.resize, settings.flip), settings.seed, alter, other)

    def held_out(self) -> Items | None:
        """The samples as validation sees them."""
        if self.validation is None:
            return None
        view, samples = self.view, self.validation.samples
        return Items(
            samples,
            lambda image, mask, ignore, _: view.with_mask(image, mask, ignore),
            other=altered_by(self.step.method.other, samples, self.step.numbers),
        )

    def plan(self) -> Plan:
        """Which samples every step sees."""
        settings, accelerator = self.settings, self.accelerator
        return Plan(
            len(self.training.samples),
            settings.batch_size,
            settings.seed,
            settings.accumulation,
            accelerator.num_processes,
            accelerator.process_index,
            shuffle=self.step.method.shuffle,
        )

    def record(self, out: Path) -> dict[str, Any]:
        """What a call that goes on with the run in `out` must share. Raises UserError for a model that could not be saved."""
        check_saves(self.model)
        return {
            **self.settings.recorded(),
            **self.step.numbers,
            "target": self.step.target,
            "second_order": self.step.second_order,
            "initial_weights": initial_fingerprint(out, self.model),
            "samples": self.training.fingerprint,
            "validation_samples": self.validation.fingerprint if self.validation else None,
            "processes": self.accelerator.num_processes,
            "about": {"model": self.about, **versions()},
        }


def prepare(model: nn.Module | str | os.PathLike[str], samples: Any, settings: TrainingSettings) -> Setup:
    """Load the model, read every sample, and check all that a run could stumble over.

    Raises UserError for unusable settings, models and samples (FaultsError with the list of all that are).
    """
    method = get_method(settings.method)
    numbers = numbers_of(settings.method, settings.recorded(), settings.options)
    target = "predicted" if method.target == "predicted" else settings.target
    second_order = settings.second_order
    if method.needs_maps:
        second_order = check_explainer(settings.explainer, second_order or method.second_order)
    trackers_of(settings.track)
    accelerator = make_accelerator(settings.precision)
    net, _ = load(model, protocol=settings.protocol)
    if (wrapper := wrapper_reason(net)) is not None:
        raise UserError(wrapper)
    net = unwrap(net)
    reason = unsupported_reason(net)
    if method.needs_maps and reason is not None:
        raise UserError(f"method {settings.method!r} needs relevance maps: {reason}")
    check_trainable(net, settings.trainable)
    _check_memory_and_speed(settings, method, net)
    config = data_config(net, settings.protocol)
    needs_labels = method.needs_labels or (method.needs_maps and target == "label")
    training, validation = gather(samples, settings.validation, net, needs_labels=needs_labels, **settings.sources())
    step = Step(method, numbers, net, accelerator, target, settings.explainer, second_order)
    setup = Setup(
        settings,
        str(model) if isinstance(model, str | os.PathLike) else type(net).__name__,
        step,
        config,
        training,
        validation,
    )
    height, width = setup.items()[0, 0][0].shape[-2:]
    if reason is None:
        step = replace(step, patches=math.prod(token_layout(net, height, width).grid))
    return replace(setup, step=step)


def _check_memory_and_speed(settings: TrainingSettings, method: Method, net: nn.Module) -> None:
    """Raise UserError for gradient checkpointing without blocks, and for compiled code where it would not give the same."""
    blocks = unsupported_reason(net, readout=False)
    if settings.gradient_checkpointing and blocks is not None:
        raise UserError(f"gradient_checkpointing is for vision transformers: {blocks}")
    if settings.compile and (method.needs_maps or method.input_gradient is not None):
        able = [name for name, row in METHODS.items() if not row.needs_maps and row.input_gradient is None]
        raise UserError(
            f"compile: method {settings.method!r} looks into the forward pass, which compiled code hides: leave it out, or choose "
            f"a method of logits alone ({', '.join(able)})"
        )
    if settings.compile and settings.gradient_checkpointing:
        raise UserError("compile and gradient_checkpointing exclude each other: give one of them")


def check_explainer(name: str, second_order: bool) -> bool:
    """Whether maps of this explainer are computed with second-order gradients. Raises UserError for one that does not
    train."""
    if name not in EXPLAINERS:
        raise UserError(f"unknown explainer {name!r}: choose one of {', '.join(EXPLAINERS)}")
    explainer = EXPLAINERS[name]
    if not explainer.trains:
        able = [other for other, row in EXPLAINERS.items() if row.trains]
        raise UserError(
            f"explainer {name!r} gives maps without a gradient, which cannot train: choose {', '.join(able)}"
        )
    return second_order or explainer.needs_second_order
