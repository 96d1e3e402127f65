"""Weights on the disk: what is read from a file or a checkpoint folder, checked, and put into a model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.weights.reading import read

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Checkpoint(NamedTuple):
    """What a checkpoint folder holds."""

    config: dict[str, Any]
    weights: dict[str, Tensor]


def read_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Config and weights of a checkpoint folder, ours or one that timm wrote, as of one and the same save.

    Raises UserError when a file is missing, cut short or no checkpoint.
    """
    folder = Path(folder)
    for _ in range(5):  # again if a writer put a new checkpoint in its place between the two files
        before = _identity(folder)
        try:
            checkpoint = Checkpoint(read_config(folder), read_weights(folder / WEIGHTS))
        except UserError:
            if _identity(folder) == before:
                raise
            continue
        if _identity(folder) == before:
            return checkpoint
    raise UserError(f"{folder} is being rewritten all the time: try again when the writer has ended.")


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The `config.json` of a checkpoint folder. Raises UserError when it is missing or none of a checkpoint."""
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}: a checkpoint is a folder with {WEIGHTS} and {CONFIG}.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): is it the config of a checkpoint?") from error
    if not isinstance(config, dict) or "architecture" not in config:
        raise UserError(f"{path} names no architecture, so it is not the config of a checkpoint.")
    return config


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors by name in a file that `save_checkpoint` or timm wrote, on the CPU.

    Raises UserError when the file is missing, cut short, or holds no weights.
    """
    content = read(path).content
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no weights: expected tensors by name.")
    return {str(name): value for name, value in content.items()}


def fill(model: nn.Module, weights: Mapping[str, Tensor], source: object) -> None:
    """Load `weights` into `model`, every one of them.

    Raises UserError that names the first missing, unexpected and misshapen ones, and `source`.
    """
    own = model.state_dict()
    problems = {
        "missing": [name for name in own if name not in weights],
        "unexpected": [name for name in weights if name not in own],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} in place of {tuple(own[name].shape)}"
            for name in own
            if name in weights and weights[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        told = "; ".join(f"{len(names)} {what} ({_first(names)})" for what, names in problems.items() if names)
        raise UserError(
            f"The weights in {source} do not fit the model {_name(model)}: {told}. "
            "Check the architecture and its arguments."
        )
    model.load_state_dict(dict(weights))


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict on the CPU, contiguous, no two tensors in one storage (safetensors writes each by itself)."""
    seen: set[int] = set()
    tensors = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        storage = value.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != value.nbytes:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        tensors[name] = value
    return tensors


def _identity(folder: Path) -> tuple[int, int, int] | None:
    try:
        stat, weights = folder.stat(), (folder / WEIGHTS).stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, weights.st_ino


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _name(model: nn.Module) -> str:
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return cfg.get("architecture") or type(model).__name__
