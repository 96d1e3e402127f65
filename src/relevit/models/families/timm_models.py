"""timm's models by name and in its own form of a folder: `model.safetensors` and a readable `config.json`.

`timm.create_model("local-dir:FOLDER", pretrained=True)` reads such a folder. `config.json` holds `architecture`, `num_classes`,
`model_args` (the keyword arguments that rebuild the model), `pretrained_cfg` (preprocessing) and `relevit` (ours: version and what
the caller gives as `extra`). timm records the arguments on every model that `timm.create_model` builds; they are read from there,
so that nothing has to be kept by hand.
"""

from __future__ import annotations

import difflib
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub.constants
import timm
import torch
from timm.models import get_model_args, get_model_input_config, is_model, split_model_name_tag
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.checkpoints import fill
from relevit.models.families.family import as_json
from relevit.models.weights.fitting import converter, head_names
from relevit.versions import RELEVIT

_SOURCE_KEYS = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "label_offset"}
_LABEL_KEYS = {"label_names", "label_descriptions"}
_DATA_KEYS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")


def by_name(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    """timm's model of this name. Raises UserError for an unknown one, wrong arguments, and weights that cannot be had."""
    check_name(name)
    try:
        with offline_at_once() if pretrained else nullcontext():
            return timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:
        if not pretrained or not _builds(name, arguments):
            raise UserError(f"timm could not build {name}: {line(error)}") from error
        if "No pretrained weights exist" in str(error):
            raise UserError(
                f"timm has no pretrained weights for {name}: give checkpoint=FILE or another name."
            ) from error
        if "loading state_dict" in str(error):
            raise UserError(f"The pretrained weights of {name} do not fit these arguments: {line(error)}") from error
        raise UserError(
            f"The weights of {name} could not be downloaded ({line(error)}): connect to the internet, "
            "or give a local file of them with checkpoint=FILE."
        ) from error


def by_config(
    config: Mapping[str, Any], weights: dict[str, Tensor] | None, arguments: Mapping[str, Any], source: Path
) -> nn.Module:
    """The model of a `config.json`, with all of these weights, if any."""
    saved = dict(config.get("model_args") or {})
    if "num_classes" in config:
        saved.setdefault("num_classes", config["num_classes"])
    cfg = dict(config["pretrained_cfg"], num_classes=config["num_classes"]) if "pretrained_cfg" in config else None
    if cfg is not None:
        cfg.update({key: config[key] for key in ("label_names", "label_descriptions") if key in config})
    name = config["architecture"]
    check_name(name)
    try:
        model = timm.create_model(name, pretrained=False, pretrained_cfg=cfg, **{**saved, **arguments})
    except Exception as error:
        raise UserError(f"timm {timm.__version__} could not build {name} for {source}: {line(error)}") from error
    if weights is None:
        return model
    fill(model, adapted(model, weights, new_head=arguments.get("num_classes") is not None), source)
    return model


def adapted(model: nn.Module, weights: dict[str, Tensor], new_head: bool) -> dict[str, Tensor]:
    """`weights` themselves where they fit by name and shape; else converted as timm converts its own (older names,
    another input size). With `new_head`, a missing head or one of another number of classes gives way to the untrained
    one of the model."""
    own = model.state_dict()
    if {name: value.shape for name, value in own.items()} == {name: value.shape for name, value in weights.items()}:
        return weights
    names = [f"{head}.{kind}" for head in head_names(model) for kind in ("weight", "bias")]
    differing = [
        name for name in names if name in own and (name not in weights or own[name].shape != weights[name].shape)
    ]
    convert = converter(model)
    if convert is not None:
        weights = convert(weights)
    return {**weights, **{name: own[name] for name in differing}} if new_head else weights


def checkpoint_config(
    model: nn.Module, *, extra: Mapping[str, Any] | None = None, data_config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of `config.json` for `model`.

    Raises UserError when the model does not come from `timm.create_model`, or was altered since, so that its config
    would build a model with other weights.
    """
    source = getattr(model, "pretrained_cfg", None)
    if not isinstance(source, Mapping) or not source.get("architecture") or not hasattr(model, "_model_args"):
        raise UserError(
            f"This {type(model).__name__} was not built by timm.create_model, so a checkpoint of it could not be "
            "loaded: build it with timm.create_model or relevit.load, whose arguments change its size and depth."
        )
    known = getattr(model, "num_classes", None)
    drop = _SOURCE_KEYS | (set() if known == source.get("num_classes") else _LABEL_KEYS)
    cfg = {key: deepcopy(value) for key, value in source.items() if key not in drop}
    inputs = get_model_input_config(model)
    cfg.update(inputs, num_classes=known, custom_load=False)
    if inputs["fixed_input_size"]:
        cfg.pop("test_input_size", None)
    cfg.update({key: data_config[key] for key in _DATA_KEYS if data_config and key in data_config})
    if data_config and "crop_pct" in data_config:
        cfg.pop("test_crop_pct", None)
    config = {
        "architecture": cfg.pop("architecture"),
        "num_classes": known,
        "model_args": get_model_args(model),
        "pretrained_cfg": cfg,
        "relevit": {"version": RELEVIT, **(extra or {})},
    }
    config = json.loads(as_json(config))
    _check_rebuilds(config, model)
    return config


def _check_rebuilds(config: Mapping[str, Any], model: nn.Module) -> None:
    """Build the model from its config without memory (the meta device) and compare the names and shapes of its
    weights."""
    with torch.device("meta"):
        twin = timm.create_model(config["architecture"], pretrained=False, **config["model_args"])
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    built = {name: tuple(value.shape) for name, value in twin.state_dict().items()}
    if own != built:
        differing = sorted(name for name in own.keys() | built.keys() if own.get(name) != built.get(name))
        shown = ", ".join(differing[:3]) + (", ..." if len(differing) > 3 else "")
        raise UserError(
            f"The model was altered after timm built it, so a checkpoint of it could not be loaded "
            f"({shown} differ): give the change as arguments of timm.create_model instead."
        )


@contextmanager
def offline_at_once() -> Iterator[None]:
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


def check_name(name: str) -> None:
    """Refuse a name that timm does not know, with those that come close."""
    if name.startswith("hf-hub:"):
        return
    architecture = split_model_name_tag(name)[0]
    if not is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise UserError(f"There is neither a timm model nor a file or folder {name!r}.{hint}")


def line(error: BaseException) -> str:
    """The first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
