"""Relevance maps of vision transformers, and fine-tuning that moves them onto the object.

The public names below are imported on first use, so that `import relevit` and `relevit --help` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from relevit.versions import RELEVIT

if TYPE_CHECKING:
    from relevit.errors import UserError
    from relevit.evaluation import evaluate
    from relevit.explainers import forward_with_relevance, relevance
    from relevit.masking.tokencut import tokencut
    from relevit.models.attention import capture
    from relevit.models.loading import load, save_checkpoint
    from relevit.training.loop import finetune
    from relevit.training.losses import background_loss, confidence_loss, foreground_loss, relevance_loss, total_loss


__version__ = RELEVIT

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
    "background_loss": "training.losses",
    "capture": "models.attention",
    "confidence_loss": "training.losses",
    "evaluate": "evaluation",
    "finetune": "training.loop",
    "foreground_loss": "training.losses",
    "forward_with_relevance": "explainers",
    "load": "models.loading",
    "relevance": "explainers",
    "relevance_loss": "training.losses",
    "save_checkpoint": "models.loading",
    "tokencut": "masking.tokencut",
    "total_loss": "training.losses",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'relevit' has no attribute {name!r}")
    value = getattr(import_module(f"relevit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
