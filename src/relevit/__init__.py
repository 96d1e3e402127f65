"""Relevance maps of vision transformers, and fine-tuning that moves them onto the object.

The public names below are imported on first use, so that `import relevit` and `relevit --help` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from relevit.api import COMMANDS, function_name
from relevit.versions import RELEVIT

if TYPE_CHECKING:
    from relevit.api.audit import audit
    from relevit.api.compose import compose
    from relevit.api.convert import convert
    from relevit.api.demo import demo
    from relevit.api.doctor import doctor
    from relevit.api.effects import effects
    from relevit.api.evaluate import evaluate
    from relevit.api.explain import explain
    from relevit.api.export import export
    from relevit.api.finetune import finetune
    from relevit.api.import_checkpoint import import_checkpoint
    from relevit.api.info import info
    from relevit.api.interpolate import interpolate
    from relevit.api.masks import masks
    from relevit.api.measure import measure
    from relevit.api.probe import probe
    from relevit.api.reproduce import reproduce
    from relevit.api.split import split
    from relevit.errors import UserError
    from relevit.explainers import forward_with_relevance, relevance
    from relevit.masking.tokencut import tokencut
    from relevit.models.attention import capture
    from relevit.models.loading import load
    from relevit.models.saving import save_checkpoint
    from relevit.models.wrapping import wrap
    from relevit.training.losses import background_loss, confidence_loss, foreground_loss, relevance_loss, total_loss


__version__ = RELEVIT

# Where each public name is defined, below relevit.
_HOMES = {
    **{function_name(command): f"api.{function_name(command)}" for command in COMMANDS},
    "UserError": "errors",
    "background_loss": "training.losses",
    "capture": "models.attention",
    "confidence_loss": "training.losses",
    "foreground_loss": "training.losses",
    "forward_with_relevance": "explainers",
    "load": "models.loading",
    "relevance": "explainers",
    "relevance_loss": "training.losses",
    "save_checkpoint": "models.saving",
    "tokencut": "masking.tokencut",
    "total_loss": "training.losses",
    "wrap": "models.wrapping",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'relevit' has no attribute {name!r}")
    value = getattr(import_module(f"relevit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
