"""The models that a public function is given, loaded: one with its options, or several by their labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from relevit.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from relevit.models.view import EvaluationView


def load_one(
    model: Any,
    protocol: str = "standard",
    device: str | None = None,
    *,
    num_classes: int | None = None,
    model_args: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[nn.Module, Any]:
    """A model and its transform: of a name or path as `relevit.load` takes it (ARCHITECTURE@FILE, too), of a module, or as it
    is. `num_classes` wins over the one in `model_args`, further arguments for timm."""
    from torch import nn

    from relevit.models.loading import data_config
    from relevit.models.named import load_named
    from relevit.models.view import evaluation_view

    arguments = {**(model_args or {}), **({} if num_classes is None else {"num_classes": num_classes}), **options}
    if isinstance(model, nn.Module | tuple):
        if any(value is not None for value in arguments.values()):
            raise UserError(f"{next(iter(arguments))} is for a model given by its name: leave it out")
        net, view = model if isinstance(model, tuple) else (model, None)
        return net.to(device), view if view is not None and protocol == "standard" else evaluation_view(
            data_config(net, protocol)
        )
    return load_named(str(model), protocol=protocol, device=device, **arguments)


def load_several(
    models: Any, protocol: str = "standard", device: str | None = None
) -> dict[str, tuple[nn.Module, EvaluationView]]:
    """Models and their transforms by label: of one, of a list, or of a dictionary by label. Names may be LABEL=MODEL."""
    return {label: load_one(model, protocol, device) for label, model in labelled(models).items()}


def labelled(models: Any) -> dict[str, Any]:
    """Models by label, not loaded yet; one without a label is called as it was given, a module "model"."""
    from relevit.models.named import named_models

    if isinstance(models, Mapping):
        return {str(label): model for label, model in models.items()}
    listed = models if isinstance(models, list) else [models]
    if all(isinstance(model, str) or hasattr(model, "__fspath__") for model in listed):
        return named_models([str(model) for model in listed])
    if len(listed) > 1:
        raise UserError("several models that are no names need labels: give a dictionary")
    return {"model": listed[0]}
