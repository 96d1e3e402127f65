"""How several models are named on the command line: `MODEL`, `ARCHITECTURE@FILE`, and either with `LABEL=` before it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relevit.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from relevit.models.view import EvaluationView

_LABELLED = re.compile(r"([^=/@\\]+)=(.+)")


def named_models(given: Sequence[str]) -> dict[str, str]:
    """Models by their labels; without one a model is called as it was given. Raises UserError where two have one label.

    `LABEL=MODEL` is understood unless there is a file or folder of that very name.
    """
    named: dict[str, str] = {}
    for each in given:
        match = None if Path(each).exists() else _LABELLED.fullmatch(each)
        label, model = (match[1], match[2]) if match else (each, each)
        if label in named:
            raise UserError(f"two models are called {label}: give them labels, LABEL=MODEL")
        named[label] = model
    return named


def load_named(
    model: str, protocol: str = "standard", device: str | None = None, **options: Any
) -> tuple[nn.Module, EvaluationView]:
    """What `relevit.load` gives for one model and its options. `ARCHITECTURE@FILE` are the weights of a file or folder, such
    as .pth.tar, in the timm model of that name. Raises UserError for what cannot be loaded."""
    from timm.models import is_model, split_model_name_tag

    from relevit.models.loading import load

    architecture, _, file = model.partition("@")
    if file and not Path(model).exists() and is_model(split_model_name_tag(architecture)[0]):
        if options.get("checkpoint") is not None:
            raise UserError(f"{model} names its weights: leave out checkpoint={str(options['checkpoint'])!r}")
        model, options = architecture, {**options, "checkpoint": file}
    return load(model, protocol=protocol, device=device, **options)
