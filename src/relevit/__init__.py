"""Relevance maps of vision transformers, and fine-tuning that moves them onto the object.

The public names below are imported on first use, so that `import relevit` and `relevit --help` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relevit.attention import capture
    from relevit.errors import UserError
    from relevit.evaluation import evaluate
    from relevit.explainers import forward_with_relevance, relevance
    from relevit.losses import background_loss, confidence_loss, foreground_loss, relevance_loss, total_loss
    from relevit.masks.tokencut import tokencut
    from relevit.models import load, save_checkpoint
    from relevit.training import finetune

__version__ = "0.1.0"

__all__ = [
    "UserError",
    "background_loss",
    "capture",
    "confidence_loss",
    "evaluate",
    "finetune",
    "foreground_loss",
    "forward_with_relevance",
    "load",
    "relevance",
    "relevance_loss",
    "save_checkpoint",
    "tokencut",
    "total_loss",
]

_HOMES = {
    "UserError": "errors",
    "background_loss": "losses",
    "capture": "attention",
    "confidence_loss": "losses",
    "evaluate": "evaluation",
    "finetune": "training",
    "foreground_loss": "losses",
    "forward_with_relevance": "explainers",
    "load": "models",
    "relevance": "explainers",
    "relevance_loss": "losses",
    "save_checkpoint": "models",
    "tokencut": "masks.tokencut",
    "total_loss": "losses",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'relevit' has no attribute {name!r}")
    value = getattr(import_module(f"relevit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
