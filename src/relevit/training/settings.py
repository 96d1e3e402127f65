"""How a run trains: the keywords of `relevit.finetune` as one object, with their defaults, which are the paper's for ViT-B."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from relevit.errors import UserError

NOT_RECORDED = frozenset(
    (
        *("validation", "masks", "validation_masks", "ignore", "manifest", "class_map"),  # a hash of the samples is
        "options",  # the method's numbers are recorded as they are in effect
        "rates",  # of several runs, each of which records its own
        *("previews", "workers", "track", "progress", "checkpoint_seconds"),  # the weights do not depend on these
    )
)
"""The settings that a run's folder does not hold against a call that goes on with it; all others are compared."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a training run, by the names that `relevit.finetune` has for them; there it says what each means."""

    method: str = "relevance"
    explainer: str = "gae"
    trainable: str = "all"
    validation: Any = None
    masks: str | os.PathLike[str] | None = None
    validation_masks: str | os.PathLike[str] | None = None
    ignore: str | os.PathLike[str] | None = None
    manifest: str | os.PathLike[str] | None = None
    epochs: int = 50
    batch_size: int = 8
    lr: float | Literal["auto"] = 3e-6
    rates: Sequence[float] | None = None
    weight_decay: float = 1e-4
    lr_decay: float = 0.85
    lr_decay_epochs: int = 2
    temperature: float = 1.0
    lambda_bg: float = 2.0
    lambda_fg: float = 0.3
    lambda_relevance: float | None = None
    lambda_classification: float | None = None
    options: Mapping[str, float] | None = None
    target: Literal["label", "predicted"] = "label"
    second_order: bool = False
    accumulation: int = 1
    max_grad_norm: float | None = None
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    gradient_checkpointing: bool = False
    compile: bool = False
    seed: int = 0
    max_steps: int | None = None
    resize: float = 256 / 224
    flip: float = 0.5
    protocol: Literal["standard", "paper"] = "standard"
    validation_every: int = 1
    validation_batch_size: int | None = None
    skip_bad: bool = False
    class_map: str | os.PathLike[str] | None = None
    previews: int = 4
    workers: int = 0
    track: Sequence[str] | str | None = ("tensorboard",)
    progress: bool = True
    checkpoint_seconds: float = 30.0

    def recorded(self) -> dict[str, Any]:
        """What the weights depend on, by name: every setting but those of `NOT_RECORDED`."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in NOT_RECORDED}

    def sources(self) -> dict[str, Any]:
        """Where the samples come from beside `samples` and `validation`, and how they are read."""
        names = ("masks", "validation_masks", "ignore", "manifest", "class_map", "skip_bad")
        return {name: getattr(self, name) for name in names}

    def check(self) -> None:
        """Raise UserError for a number out of its range."""
        for name in ("epochs", "batch_size", "lr_decay_epochs", "accumulation", "validation_every"):
            _check_count(name, getattr(self, name))
        for name in ("max_steps", "validation_batch_size"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), "None or ")
        for name in ("lr", "weight_decay", "lr_decay"):
            value = getattr(self, name)
            if (name, value) != ("lr", "auto") and not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise UserError(f"{name} must be a number of at least 0, not {value!r}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise UserError(f"seed must be a whole number of at least 0, not {self.seed!r}")
        for name, allowed in (("target", ("label", "predicted")), ("precision", ("float32", "bf16", "fp16"))):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")

    def rate_of(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        assert not isinstance(self.lr, str)  # "auto" is replaced by the rates of its trials
        return self.lr * self.lr_decay ** (epoch // self.lr_decay_epochs)


def _check_count(name: str, value: Any, alternative: str = "") -> None:
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name} must be {alternative}a whole number of at least 1, not {value!r}")
