"""Loading a model with its preprocessing: by its name in a library, a run, a checkpoint, a file of weights, the built-in one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models import is_model, split_model_name_tag
from torch import nn

from relevit.errors import UserError, tells_new_names
from relevit.models import families
from relevit.models.checkpoints import CONFIG, WEIGHTS, read_weights
from relevit.models.families.family import unwrap
from relevit.models.families.timm_models import by_config, check_name
from relevit.models.families.wrapped import Wrapped
from relevit.models.saving import is_checkpoint, restore, save_checkpoint
from relevit.models.view import evaluation_view

__all__ = ["data_config", "is_checkpoint", "labelled", "load", "load_several", "save_checkpoint"]

BUILTIN = Path(__file__).parent / "builtin"
# The published setup: one normalisation and one crop for every model (protocol of the paper).
PAPER = {
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bilinear",
    "crop_pct": 224 / 256,
    "crop_mode": "center",
}
_LABELLED = re.compile(r"([^=/@\\]+)=(.+)")
_FILE_ENDINGS = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin")


Given = str | os.PathLike[str] | nn.Module | tuple[nn.Module, Any]
"""What stands for a model: its name, its path, a module, or a module with its transform."""


@tells_new_names
def load(
    name: Given,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    model: str | None = None,
    pretrained: bool = True,
    num_classes: int | None = None,
    protocol: str = "standard",
    device: str | torch.device | None = None,
    model_args: Mapping[str, Any] | None = None,
    **model_kwargs: Any,
) -> tuple[nn.Module, Any]:
    """A model in evaluation mode and the transform of a PIL picture to its input, (3, height, width).

    Args:
        name: a timm name ("vit_base_patch16_224.augreg_in21k_ft_in1k"); ARCHITECTURE@FILE for the weights of a file or folder
            in the timm model of that name; the folder of a run (its best checkpoint; RUN/last for the last); a checkpoint
            folder; a `.safetensors`, `.pth` or `.pth.tar` file, whose architecture is the timm name `model` or stands in a
            `config.json` beside it; "builtin", the model of the demo; a module, which keeps its mode, or one with its
            transform, which the protocol "paper" replaces.
        checkpoint: a file or folder of weights for the timm model `name`, in place of its pretrained ones; for a module that
            `relevit.wrap` made, the folder of a checkpoint of it.
        model: the timm name of the architecture of a file.
        pretrained: False builds without weights.
        num_classes: another number than the source's gives a new, untrained head.
        protocol: "paper" is mean 0.5, std 0.5, short side 256, centre crop 224, bilinear, for every model.
        device: where the model goes; a module stays by default, all else goes to the processor.
        model_args, model_kwargs: go to `timm.create_model`.

    Raises:
        UserError: an unknown name, or weights that do not fit, cannot be read or cannot be downloaded.
    """
    if protocol not in ("standard", "paper"):
        raise UserError(f"protocol must be 'standard' or 'paper', not {protocol!r}.")
    arguments = {**(model_args or {}), **model_kwargs, **({} if num_classes is None else {"num_classes": num_classes})}
    if isinstance(name, nn.Module | tuple):
        net, transform = name if isinstance(name, tuple) else (name, None)
        if checkpoint is not None and isinstance(net, Wrapped):
            restore(net, checkpoint)
            checkpoint = None
        options = {"checkpoint": checkpoint, "model": model, **arguments}
        for option in (option for option, value in options.items() if value is not None):
            raise UserError(f"{option} is for a model given by its name: leave it out")
        if transform is None or protocol == "paper":
            transform = evaluation_view(data_config(net, protocol))
        return net if device is None else net.to(device), transform
    name, checkpoint = _with_weights(name, checkpoint)
    source = _local(name, known=model is not None)
    if source is not None and checkpoint is not None:
        raise UserError(f"{name} has weights already: give either it or checkpoint={str(checkpoint)!r}, not both.")

    if source is None and checkpoint is None:
        built = _from_library(os.fspath(name), pretrained, arguments)
    elif source is None:
        built = _from_weights(Path(checkpoint or ""), os.fspath(name), pretrained, arguments)
    elif source.is_dir():
        built = (families.of_folder(source) or families.TIMM).load(source, pretrained=pretrained, arguments=arguments)
    else:
        built = _from_weights(source, model, pretrained, arguments)
    return built.to(device or "cpu").eval(), evaluation_view(data_config(built, protocol))


def _with_weights(
    name: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None
) -> tuple[str | os.PathLike[str], str | os.PathLike[str] | None]:
    """ARCHITECTURE@FILE as name and checkpoint, unless there is a file or folder of that very name."""
    architecture, _, file = os.fspath(name).partition("@")
    if not file or Path(name).exists() or not is_model(split_model_name_tag(architecture)[0]):
        return name, checkpoint
    if checkpoint is not None:
        raise UserError(f"{name} names its weights: leave out checkpoint={str(checkpoint)!r}")
    return architecture, file


def labelled(models: Any) -> dict[str, Given]:
    """Models by label, not loaded yet: of one, of a list, or of a dictionary by label.

    A name may be LABEL=MODEL, unless there is a file or folder of that very name; without a label a model is called as it
    was given, a module "model". Raises UserError where two have one label, and for several modules in a list.
    """
    if isinstance(models, Mapping):
        return {str(label): model for label, model in models.items()}
    named: dict[str, Given] = {}
    for given in models if isinstance(models, list) else [models]:
        label, model = "model", given
        if isinstance(given, str | os.PathLike):
            match = None if Path(given).exists() else _LABELLED.fullmatch(os.fspath(given))
            label, model = (match[1], match[2]) if match else (os.fspath(given), os.fspath(given))
        elif isinstance(models, list) and len(models) > 1:
            raise UserError("several models that are no names need labels: give a dictionary")
        if label in named:
            raise UserError(f"two models are called {label}: give them labels, LABEL=MODEL")
        named[label] = model
    return named


def load_several(
    models: Any, protocol: str = "standard", device: str | torch.device | None = None
) -> dict[str, tuple[nn.Module, Any]]:
    """Models and their transforms by label, see `labelled` and `load`."""
    return {label: load(model, protocol=protocol, device=device) for label, model in labelled(models).items()}


def data_config(model: nn.Module, protocol: str = "standard") -> dict[str, Any]:
    """The preprocessing of `model`: input_size (3, height, width), mean, std, interpolation, crop_pct, crop_mode.

    "standard": what the model was trained with, as its library records it. "paper": the published setup's, with the model's own
    input size. The size is the one that the model was built for, not that of its pretrained weights.
    """
    config = dict(families.of_module(model).data_config(unwrap(model)))
    if protocol == "paper":
        config.update(PAPER)
    config["mean"], config["std"] = tuple(config["mean"]), tuple(config["std"])
    return config


def _local(name: str | os.PathLike[str], known: bool) -> Path | None:
    """The file or checkpoint folder that `name` stands for, None if it is timm's to find."""
    text = os.fspath(name)
    if text == "builtin":
        return BUILTIN
    if ":" in text and not Path(text).exists() and families.of_name(text) is not None:
        return None
    path = Path(text.removeprefix("local-dir:"))
    if not path.exists():
        plain = not text.endswith(_FILE_ENDINGS) and os.sep not in text and not text.startswith("local-dir:")
        if plain or (is_model(text) and not known):
            return None
        raise UserError(f"There is no {path}: give a timm model's name, a run's folder, or a file of weights.")
    if is_model(text) and os.sep not in text and isinstance(name, str):
        return None  # a folder of the same name does not hide a model: ./NAME means the folder
    if path.is_file():
        return path
    for folder in (path, path / "best"):
        if (folder / WEIGHTS).is_file() or families.of_folder(folder) not in (None, families.TIMM):
            return folder
    if (path / "last" / WEIGHTS).is_file():
        raise UserError(f"{path} has no best checkpoint yet: give {path / 'last'} for its last one.")
    raise UserError(f"{path} is neither a run nor a checkpoint: there is no {WEIGHTS} in it, in best or in last.")


def _from_library(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    """A model by its name in a library; what no library knows is asked of timm, which names those that come close."""
    return (families.of_name(name) or families.TIMM).load(name, pretrained=pretrained, arguments=arguments)


def _from_weights(path: Path, architecture: str | None, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    """A model of the timm name `architecture`, or of the config beside the file, with the weights of a file or
    folder."""
    if path.is_dir():
        path = path / WEIGHTS if (path / WEIGHTS).is_file() else path / "best" / WEIGHTS
    beside = path.parent / CONFIG
    if architecture is not None:
        check_name(architecture)
        config: dict[str, Any] = {"architecture": architecture}
    elif beside.is_file():
        config = json.loads(beside.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or "architecture" not in config:
            raise UserError(f"{beside} names no architecture: name the timm model of {path} with model=NAME.")
    else:
        raise UserError(f"{path} does not tell its architecture: name the timm model with model=NAME.")
    return by_config(config, read_weights(path) if pretrained else None, arguments, path)
