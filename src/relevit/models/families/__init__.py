"""Families of models: which library a module, a name or a folder belongs to, and what the rest of the house asks of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.data import infer_imagenet_subset
from torch import Tensor, nn

from relevit.extensions import Table
from relevit.models.checkpoints import CONFIG
from relevit.models.families.family import Family, unwrap
from relevit.models.families.timm import Timm, timm_data_config
from relevit.models.families.torchvision import Torchvision
from relevit.models.families.transformers import Transformers
from relevit.models.families.wrapped import WrappedModules
from relevit.models.families.zero_shot import ZeroShotModels

TIMM = Timm()
_HF = Transformers()
FAMILIES: Table[Family] = Table(
    "families",
    {
        "timm": TIMM,
        "hf": _HF,
        "torchvision": Torchvision(),
        "wrapped": WrappedModules(),
        "open_clip": ZeroShotModels(_HF),
    },
)


class _Any(Family):
    """Modules of no library that is known here: they can classify, and that is all that is asked of them."""

    def data_config(self, module: nn.Module) -> dict[str, Any]:
        return timm_data_config(module)


_ANY = _Any()


def of_module(module: nn.Module) -> Family:
    """The family of a module, which may be wrapped; one that refuses maps for a module of no library that is known."""
    inner = unwrap(module)
    return next((family for family in FAMILIES.values() if family.owns(inner)), _ANY)


def of_name(name: str) -> Family | None:
    """The family that a name is of, such as "hf:OWNER/NAME"; None for no name of a model."""
    return next((family for family in FAMILIES.values() if family.owns_name(name)), None)


def of_folder(folder: str | os.PathLike[str]) -> Family | None:
    """The family whose form of a folder this is, by its `config.json`; None for none that is known."""
    try:
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, Mapping):
        return None
    return next((family for family in FAMILIES.values() if family.owns_folder(config)), None)


def logits_of(model: nn.Module, images: Tensor) -> Any:
    """The logits (batch, classes) of a forward pass, also of a model that returns them with other things."""
    return of_module(model).logits(model(images))


def class_count(model: Any) -> int | None:
    """The number of a model's classes, None where it is not known."""
    return of_module(model).class_count(unwrap(model))


def labels(model: Any) -> dict[int, str]:
    """A model's own class names by index; empty where it has none."""
    return of_module(model).labels(unwrap(model))


def imagenet_subset(model: nn.Module) -> str | None:
    """Which ImageNet the model's classes are, by their number, as timm tells them apart; None for other classes."""
    return infer_imagenet_subset({"num_classes": class_count(model)})


def features(model: nn.Module, images: Tensor) -> Tensor:
    """What the model's head is applied to, (batch, features)."""
    return of_module(model).features(unwrap(model), images)


def check_features(model: nn.Module) -> None:
    """Raises UserError for a model whose features are not known."""
    of_module(model).check_features(unwrap(model))


def architecture(model: nn.Module) -> str:
    """The model's architecture by name."""
    return of_module(model).architecture(unwrap(model))
