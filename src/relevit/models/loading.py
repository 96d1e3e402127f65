"""Loading a model with its preprocessing: any timm ViT by name, a run, a checkpoint, a file of weights, the built-in
one."""

from __future__ import annotations

import difflib
import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub.constants
import timm
import torch
from timm.data import resolve_data_config
from timm.models import get_model_input_config, is_model, split_model_name_tag
from torch import nn

from relevit.errors import UserError, tells_new_names
from relevit.models.checkpoints import (
    CONFIG,
    WEIGHTS,
    checkpoint_config,
    fill,
    read_checkpoint,
    read_weights,
    save_checkpoint,
)
from relevit.models.view import evaluation_view

__all__ = ["checkpoint_config", "data_config", "is_checkpoint", "labelled", "load", "load_several", "save_checkpoint"]

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
        checkpoint: a file or folder of weights for the timm model `name`, in place of its pretrained ones.
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
        options = {"checkpoint": checkpoint, "model": model, **arguments}
        for option in (option for option, value in options.items() if value is not None):
            raise UserError(f"{option} is for a model given by its name: leave it out")
        net, transform = name if isinstance(name, tuple) else (name, None)
        if transform is None or protocol == "paper":
            transform = evaluation_view(data_config(net, protocol))
        return net if device is None else net.to(device), transform
    name, checkpoint = _with_weights(name, checkpoint)
    source = _local(name, known=model is not None)
    if source is not None and checkpoint is not None:
        raise UserError(f"{name} has weights already: give either it or checkpoint={str(checkpoint)!r}, not both.")

    if source is None:
        architecture = os.fspath(name)
        built = _from_timm(architecture, pretrained, arguments) if checkpoint is None else None
        built = built or _from_weights(Path(checkpoint or ""), architecture, pretrained, arguments)
    elif source.is_dir():
        built = _from_folder(source, pretrained, arguments)
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

    "standard": what the model was trained with, as timm records it. "paper": the published setup's, with the model's own
    input size. The size is the one that the model was built for, not that of its pretrained weights.
    """
    config = dict(resolve_data_config({}, pretrained_cfg=getattr(model, "pretrained_cfg", None) or {}, model=model))
    if protocol == "paper":
        config.update(PAPER)
    config["input_size"] = tuple(get_model_input_config(model)["input_size"])
    config["mean"], config["std"] = tuple(config["mean"]), tuple(config["std"])
    return config


def is_checkpoint(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` is a checkpoint folder: weights and a config beside them."""
    return (Path(folder) / WEIGHTS).is_file() and (Path(folder) / CONFIG).is_file()


def _local(name: str | os.PathLike[str], known: bool) -> Path | None:
    """The file or checkpoint folder that `name` stands for, None if it is timm's to find."""
    text = os.fspath(name)
    if text == "builtin":
        return BUILTIN
    if text.startswith("hf-hub:"):
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
        if (folder / WEIGHTS).is_file():
            return folder
    if (path / "last" / WEIGHTS).is_file():
        raise UserError(f"{path} has no best checkpoint yet: give {path / 'last'} for its last one.")
    raise UserError(f"{path} is neither a run nor a checkpoint: there is no {WEIGHTS} in it, in best or in last.")


def _from_timm(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    _check_name(name)
    try:
        with _offline_at_once() if pretrained else nullcontext():
            return timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:
        if not pretrained or not _builds(name, arguments):
            raise UserError(f"timm could not build {name}: {_line(error)}") from error
        if "No pretrained weights exist" in str(error):
            raise UserError(
                f"timm has no pretrained weights for {name}: give checkpoint=FILE or another name."
            ) from error
        if "loading state_dict" in str(error):
            raise UserError(f"The pretrained weights of {name} do not fit these arguments: {_line(error)}") from error
        raise UserError(
            f"The weights of {name} could not be downloaded ({_line(error)}): connect to the internet, "
            "or give a local file of them with checkpoint=FILE."
        ) from error


@contextmanager
def _offline_at_once() -> Iterator[None]:
    """Without a network, look for weights in the local cache at once: the hub's client would try for a minute."""
    constants = huggingface_hub.constants
    host = urlsplit(constants.ENDPOINT).hostname
    before = constants.HF_HUB_OFFLINE
    if host and not getproxies():
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _builds(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether timm can build the model at all, weights aside."""
    try:
        with torch.device("meta"):
            timm.create_model(name, pretrained=False, **arguments)
    except Exception:
        return False
    return True


def _from_folder(folder: Path, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    checkpoint = read_checkpoint(folder)
    return _build(checkpoint.config, checkpoint.weights if pretrained else None, arguments, folder)


def _from_weights(path: Path, architecture: str | None, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    """A model of the timm name `architecture`, or of the config beside the file, with the weights of a file or
    folder."""
    if path.is_dir():
        path = path / WEIGHTS if (path / WEIGHTS).is_file() else path / "best" / WEIGHTS
    beside = path.parent / CONFIG
    if architecture is not None:
        _check_name(architecture)
        config: dict[str, Any] = {"architecture": architecture}
    elif beside.is_file():
        config = json.loads(beside.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or "architecture" not in config:
            raise UserError(f"{beside} names no architecture: name the timm model of {path} with model=NAME.")
    else:
        raise UserError(f"{path} does not tell its architecture: name the timm model with model=NAME.")
    return _build(config, read_weights(path) if pretrained else None, arguments, path)


def _build(
    config: Mapping[str, Any], weights: dict[str, torch.Tensor] | None, arguments: Mapping[str, Any], source: Path
) -> nn.Module:
    saved = dict(config.get("model_args") or {})
    if "num_classes" in config:
        saved.setdefault("num_classes", config["num_classes"])
    cfg = dict(config["pretrained_cfg"], num_classes=config["num_classes"]) if "pretrained_cfg" in config else None
    if cfg is not None:
        cfg.update({key: config[key] for key in ("label_names", "label_descriptions") if key in config})
    name = config["architecture"]
    _check_name(name)
    try:
        model = timm.create_model(name, pretrained=False, pretrained_cfg=cfg, **{**saved, **arguments})
    except Exception as error:
        raise UserError(f"timm {timm.__version__} could not build {name} for {source}: {_line(error)}") from error
    if weights is None:
        return model
    fill(model, _adapted(model, weights, new_head=arguments.get("num_classes") is not None), source)
    return model


def _adapted(model: nn.Module, weights: dict[str, torch.Tensor], new_head: bool) -> dict[str, torch.Tensor]:
    """`weights` themselves where they fit by name and shape; else converted as timm converts its own (older names,
    another input size). With `new_head`, a missing head or one of another number of classes gives way to the untrained
    one of the model."""
    own = model.state_dict()
    if {name: value.shape for name, value in own.items()} == {name: value.shape for name, value in weights.items()}:
        return weights
    heads = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = [f"{head}.{kind}" for head in ([heads] if isinstance(heads, str) else heads) for kind in ("weight", "bias")]
    differing = [
        name for name in names if name in own and (name not in weights or own[name].shape != weights[name].shape)
    ]
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        # A format that timm does not know raises anything: the check of names and shapes then tells what is wrong.
        with suppress(Exception):
            weights = dict(convert(dict(weights), model))
    return {**weights, **{name: own[name] for name in differing}} if new_head else weights


def _check_name(name: str) -> None:
    """Refuse a name that timm does not know, with those that come close."""
    if name.startswith("hf-hub:"):
        return
    architecture = split_model_name_tag(name)[0]
    if not is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise UserError(f"There is neither a timm model nor a file or folder {name!r}.{hint}")


def _line(error: BaseException) -> str:
    """The first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
