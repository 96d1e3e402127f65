"""Checkpoints of any family: a folder in the form of the model's own library, written at once or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from relevit.files import atomic_folder
from relevit.models.checkpoints import CONFIG, WEIGHTS, fill
from relevit.models.families import of_module
from relevit.models.families.family import unwrap


def save_checkpoint(
    folder: str | os.PathLike[str],
    model: nn.Module,
    *,
    extra: Mapping[str, Any] | None = None,
    data_config: Mapping[str, Any] | None = None,
) -> None:
    """Write `model` to `folder` in its library's own form, atomically: a crash at any moment leaves the earlier checkpoint or the
    new one.

    `extra` (what json can hold) is kept beside the model, under "relevit". `data_config` (as of
    `relevit.models.loading.data_config`) is the preprocessing that goes with the weights where it differs from the model's own.
    Files in `folder` that are not part of the checkpoint do not outlast it. Raises UserError when the disk is full (the
    earlier checkpoint is unharmed), or when the model could not be loaded again from its folder.
    """
    module, family = unwrap(model), of_module(model)
    with atomic_folder(folder) as temporary:
        family.save(temporary, module, extra=dict(extra or {}), data_config=data_config)


def check_saves(model: nn.Module) -> None:
    """Raises UserError for a model that `save_checkpoint` could not write; to be called before long work."""
    of_module(model).check_saves(unwrap(model))


def read_saved(model: nn.Module, folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights that `save_checkpoint` wrote of a model like this one, by the names of its state dict."""
    return of_module(model).weights(unwrap(model), Path(folder))


def restore(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Load the weights that `save_checkpoint` wrote of this model. Raises UserError where they do not fit."""
    fill(unwrap(model), read_saved(model, folder), folder)


def is_checkpoint(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` is a checkpoint folder: weights and a config beside them."""
    return (Path(folder) / WEIGHTS).is_file() and (Path(folder) / CONFIG).is_file()
