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

from relevit.errors import ArgumentError, UserError, tells_new_names
from relevit.models import families
from relevit.models.checkpoints import CONFIG, WEIGHTS
from relevit.models.families.family import unwrap
from relevit.models.families.timm_models import by_config, check_name
from relevit.models.families.wrapped import Wrapped
from relevit.models.families.zero_shot import NoClassesError
from relevit.models.saving import is_checkpoint, restore, save_checkpoint
from relevit.models.view import evaluation_view
from relevit.models.weights.opening import Opened, open_weights, weights_for
from relevit.models.weights.options import ENDINGS, WORDS, FileOptions, split_options
from relevit.processes import is_first
from relevit.terminal import remark

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
_LABELLED = re.compile(r"([^=/@?\\]+)=(.+)")


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
    head: bool = True,
    model_args: Mapping[str, Any] | None = None,
    **model_kwargs: Any,
) -> tuple[nn.Module, Any]:
    """A model in evaluation mode and the transform of a PIL picture to its input, (3, height, width).

    Args:
        name: a timm name ("vit_base_patch16_224.augreg_in21k_ft_in1k"); ARCHITECTURE@FILE for weights that a training loop wrote
            (what `relevit import` has options for stands behind it: ARCHITECTURE@FILE?weights=ema&image_size=384); the folder
            of a run (its best checkpoint; RUN/last for the last); a checkpoint folder; a `.safetensors`, `.pth` or `.pth.tar` file, whose architecture is the timm name `model` or stands in a
            `config.json` beside it; "builtin", the model of the demo; a module, which keeps its mode, or one with its
            transform, which the protocol "paper" replaces.
        checkpoint: a file or folder of weights for the timm model `name`, in place of its pretrained ones; for a module that
            `relevit.wrap` made, the folder of a checkpoint of it.
        model: the timm name of the architecture of a file.
        pretrained: False builds without weights.
        num_classes: another number than the source's gives a new, untrained head.
        head: False allows a file of weights without a head; the model then has none.
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
        return _as_given(name, {"checkpoint": checkpoint, "model": model, **arguments}, protocol, device)
    name, checkpoint, said = _with_weights(name, checkpoint)
    source = _local(name, known=model is not None)
    if source is not None and checkpoint is not None:
        raise UserError(f"{name} has weights already: give either it or checkpoint={str(checkpoint)!r}, not both.")

    if checkpoint is None and (source is None or source.is_dir()):
        arguments |= _words(said)
    if source is None and checkpoint is None:
        built = _from_library(os.fspath(name), pretrained, arguments)
    elif source is None:
        built = _foreign(os.fspath(name), Path(checkpoint or ""), said, arguments, head)
    elif source.is_dir():
        built = (families.of_folder(source) or families.TIMM).load(source, pretrained=pretrained, arguments=arguments)
    elif model is not None:
        built = _foreign(model, source, said, arguments, head)
    else:
        built = _from_file(source, said, pretrained, arguments)
    return built.to(device or "cpu").eval(), evaluation_view(data_config(built, protocol))


def _as_given(
    name: nn.Module | tuple[nn.Module, Any],
    options: Mapping[str, Any],
    protocol: str,
    device: str | torch.device | None,
) -> tuple[nn.Module, Any]:
    """A module and its transform, which need nothing of what is said of names."""
    net, transform = name if isinstance(name, tuple) else (name, None)
    if options["checkpoint"] is not None and isinstance(net, Wrapped):
        restore(net, options["checkpoint"])
        options = {**options, "checkpoint": None}
    for option in (option for option, value in options.items() if value is not None):
        raise UserError(f"{option} is for a model given by its name: leave it out")
    if transform is None or protocol == "paper":
        transform = evaluation_view(data_config(net, protocol))
    return net if device is None else net.to(device), transform


def _with_weights(
    name: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None
) -> tuple[str | os.PathLike[str], str | None, FileOptions]:
    """ARCHITECTURE@FILE as name and checkpoint, unless there is a file or folder of that very name; and what is said of the file."""
    architecture, _, file = os.fspath(name).partition("@")
    if not file or Path(name).exists() or not _is_architecture(architecture):
        path, options = (None, FileOptions()) if checkpoint is None else split_options(checkpoint)
        plain, of_name = (name, options) if checkpoint is not None or isinstance(name, Path) else split_options(name)
        return plain, path, of_name
    if checkpoint is not None:
        raise UserError(f"{name} names its weights: leave out checkpoint={str(checkpoint)!r}")
    return architecture, *split_options(file)


def names_file(model: Any) -> bool:
    """Whether a model is given as ARCHITECTURE@FILE."""
    return isinstance(model, str) and _with_weights(model, None)[1] is not None


def _words(said: FileOptions) -> dict[str, Any]:
    """What is said behind the name of a model that is no file: classes and templates, which its family uses or refuses."""
    for option in said.told():
        if option not in WORDS:
            raise ArgumentError(option, "is said of a file of weights: give the model as ARCHITECTURE@FILE")
    return said.told()


def _is_architecture(name: str) -> bool:
    """Whether a library has a model of this name."""
    return is_model(split_model_name_tag(name)[0]) or (":" in name and families.of_name(name) is not None)


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
        plain = not text.endswith(ENDINGS) and os.sep not in text and not text.startswith("local-dir:")
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


def _from_file(path: Path, said: FileOptions, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    """A model of the config beside a file, with its weights; the config tells classes and preprocessing."""
    beside = path.parent / CONFIG
    if not beside.is_file():
        raise UserError(
            f"{path} does not tell its architecture: name the timm model, as NAME@{path} or with model=NAME."
        )
    config = json.loads(beside.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or "architecture" not in config:
        raise UserError(f"{beside} names no architecture: name the timm model, as NAME@{path} or with model=NAME.")
    for option in said.told():
        if option != "weights":
            raise ArgumentError(option, f"is told by {beside}: give NAME@{path} to say otherwise")
    model = by_config(config, None, arguments, path)
    if not pretrained:
        return model
    weights, notes = weights_for(model, config["architecture"], path, said.weights)
    _say((os.path.abspath(path), *notes), notes)
    return by_config(config, weights, arguments, path)


def opened(
    architecture: str, path: Path, options: FileOptions, arguments: Mapping[str, Any], *, head: bool = True
) -> Opened:
    """A library's model of this name with the weights that a training loop wrote to a file or folder (see `open_weights`)."""
    if ":" not in architecture:
        check_name(architecture)

    def build(changed: Mapping[str, Any]) -> nn.Module:
        try:
            return _from_library(architecture, False, changed)
        except NoClassesError as error:
            raise UserError(
                f"{architecture} is a model of images and texts, which takes no file of weights: give the folder of save_pretrained, or "
                "one of open_clip's own names"
            ) from error

    return open_weights(build, architecture, path, options, arguments, head=head)


_told: set[tuple[str, ...]] = set()  # what was said of a file is said once


def _foreign(
    architecture: str, path: Path, options: FileOptions, arguments: Mapping[str, Any], head: bool
) -> nn.Module:
    """As `opened`; what is guessed is said, once."""
    if options.templates is not None:
        raise ArgumentError("templates", f"is for models of images and texts by their names or folders, not for {path}")
    found = opened(architecture, path, options, arguments, head=head)
    _say((architecture, os.path.abspath(path), *found.notes), found.notes)
    return found.model


def _say(key: tuple[str, ...], notes: list[str]) -> None:
    if notes and is_first() and key not in _told:
        remark(*notes)
    _told.add(key)
