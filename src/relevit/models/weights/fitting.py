"""Weights of a file in a model of an architecture: names and shapes compared, the head found, what does not fit told."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.weights.sets import WeightSet

MOST_NAMES = 10
# Tensors that training loops and libraries leave beside the weights, and that no model computes with.
_IDLE = re.compile(
    r"(.*\.)?(n_averaged|total_ops|total_params|num_batches_tracked|relative_position_index|attn_mask|position_ids|"
    r"mask_token|logit_scale|logit_bias|input_resolution|context_length|vocab_size)"
)
_NOT_THE_MODEL = re.compile(r"(criterion|loss|metric|train_|val_|test_|ema|decoder|mixup)")
Build = Callable[[Mapping[str, Any]], nn.Module]


@dataclass(frozen=True)
class Head:
    """The classifier of a model: the names of its linear layers, and how many features they take."""

    names: tuple[str, ...]
    features: int


def head_of(model: nn.Module) -> Head | None:
    """The linear layers that give the logits: those that timm records, else the last with an output for each class."""
    names = head_names(model)
    modules = dict(model.named_modules())
    linear = {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}
    own = [name for name in names if name in linear]
    if not own:
        classes = getattr(model, "num_classes", None) or getattr(getattr(model, "config", None), "num_labels", None)
        fitting = [name for name, module in linear.items() if classes is None or module.out_features == classes]
        own = fitting[-1:] if classes != 0 else []
    return Head(tuple(own), linear[own[0]].in_features) if own else None


def head_names(model: nn.Module) -> tuple[str, ...]:
    """What timm calls the linear layers that give the logits, whether the model has them or not."""
    recorded = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (recorded,) if isinstance(recorded, str) else tuple(recorded)


def converter(model: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]] | None:
    """How timm converts weights of other libraries and sizes for this model, or transformers its own older names; None where
    there is no way."""
    if any(kind.__module__.startswith("transformers.") for kind in type(model).__mro__):
        return _by_transformers(model)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None

    def converted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        # A format that timm does not know raises anything: the check of names and shapes then tells what is wrong.
        with suppress(Exception):
            return {name: value for name, value in convert(dict(weights), model).items() if isinstance(value, Tensor)}
        return dict(weights)

    return converted


def _by_transformers(model: Any) -> Callable[[dict[str, Tensor]], dict[str, Tensor]] | None:
    """The names that transformers has in its files, and had in memory before version 5, as those in memory now."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, rename_source_key
    except ImportError:  # its own business, which another version may have elsewhere
        return None
    renamings = [each for each in get_model_conversion_mapping(model) if isinstance(each, WeightRenaming)]

    def converted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {rename_source_key(name, renamings, [])[0]: value for name, value in weights.items()}

    return converted


def with_head(
    weights: Mapping[str, Tensor], others: Mapping[str, Tensor], head: Head | None, notes: list[str]
) -> dict[str, Tensor]:
    """`weights` with the head under the architecture's name, where it has another: in a sequence, or beside the backbone."""
    found = dict(weights)
    name = head_elsewhere(weights, others, head, notes)
    if head is None or name is None:
        return found
    source = found if f"{name}.weight" in found else others
    for kind in ("weight", "bias"):
        if f"{name}.{kind}" in source:
            found[f"{head.names[0]}.{kind}"] = source[f"{name}.{kind}"]
            if source is found:
                del found[f"{name}.{kind}"]
    weight = found[f"{head.names[0]}.weight"]
    found.setdefault(f"{head.names[0]}.bias", torch.zeros(len(weight), dtype=weight.dtype))
    return found


def head_elsewhere(
    weights: Mapping[str, Tensor], others: Mapping[str, Tensor], head: Head | None, notes: list[str]
) -> str | None:
    """The linear layer that is the head where none has the architecture's name for it: the only one of its width in the
    head's place, else the only one beside the backbone."""
    if head is None or any(f"{name}.weight" in weights for name in head.names):
        return None
    inside = [name for name in weights if name.startswith(f"{head.names[0]}.") and _is_head(weights, name, head)]
    names = inside or [name for name in others if _is_head(others, name, head)]
    if len(names) > 1:
        notes.append(f"several layers could be the head ({', '.join(names[:MOST_NAMES])}): none is taken")
    if len(names) != 1:
        return None
    name = names[0].removesuffix(".weight")
    notes.append(f"the linear layer {name} is taken as the head, as if nothing lay between it and the backbone")
    return name


def _is_head(weights: Mapping[str, Tensor], name: str, head: Head) -> bool:
    return name.endswith(".weight") and weights[name].ndim == 2 and weights[name].shape[1] == head.features


def classes_in(weights: Mapping[str, Tensor], head: Head | None) -> int | None:
    """The number of classes of the head among weights; None where it is missing."""
    counts = [len(weights[f"{name}.weight"]) for name in (head.names if head else ()) if f"{name}.weight" in weights]
    return counts[0] if counts else None


@dataclass(frozen=True)
class Misfit:
    """What keeps weights from a model: names that it lacks or has too many of, and shapes that differ."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def __str__(self) -> str:
        parts, left = [], MOST_NAMES
        for names, what in (
            (self.misshapen, "of another shape"),
            (self.missing, "missing"),
            (self.unexpected, "unexpected"),
        ):
            if names:
                alike = _alike(names)
                shown = alike[: max(1, left)]
                left -= len(shown)
                rest = ", ..." if len(shown) < len(alike) else ""
                parts.append(f"{len(names)} {what} ({', '.join(shown)}{rest})")
        return "; ".join(parts)


def misfit(model: nn.Module, weights: Mapping[str, Tensor]) -> Misfit:
    """What of `weights` does not fit `model` by name and shape; tensors that no model computes with are not counted."""
    own = model.state_dict()
    return Misfit(
        [name for name in own if name not in weights and not _IDLE.fullmatch(name)],
        [name for name in weights if name not in own and not is_idle(name)],
        [
            f"{name} {tuple(weights[name].shape)} in place of {tuple(own[name].shape)}"
            for name in own
            if name in weights and weights[name].shape != own[name].shape
        ],
    )


def is_idle(name: str) -> bool:
    """Whether a tensor that the architecture lacks may be left out: no model computes its logits with it."""
    return _IDLE.fullmatch(name) is not None or _NOT_THE_MODEL.match(name) is not None


def _alike(names: list[str]) -> list[str]:
    """The same name in many blocks once, as blocks.*; in the order of the names."""
    return list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names))


def adapted(model: nn.Module, chosen: WeightSet, tensors: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """A container's tensors under the names and in the shapes of `model`: without prefix, converted and resampled as timm does."""
    head, own = head_of(model), model.state_dict()
    weights = with_head(
        chosen.strip(tensors),
        {name: value for name, value in tensors.items() if not name.startswith(chosen.prefix)},
        head,
        notes,
    )
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    if all(shapes.get(name) == tuple(value.shape) for name, value in own.items()):
        return {name: value for name, value in weights.items() if name in own or not is_idle(name)}
    convert = converter(model)
    if convert is not None:
        weights = convert(weights)
    resampled = [
        f"{name} from {shapes[name]} to {tuple(value.shape)}"
        for name, value in weights.items()
        if name in shapes and tuple(value.shape) != shapes[name] and name.split(".")[-1] != "head"
    ]
    if resampled:
        notes.append(
            f"resampled to the model's input: {', '.join(resampled[:MOST_NAMES])}{', ...' if len(resampled) > MOST_NAMES else ''}; "
            "--image-size builds the model for the file's own"
        )
    return {name: value for name, value in weights.items() if name in own or not is_idle(name)}


def check_fits(model: nn.Module, weights: Mapping[str, Tensor], source: object, name: str, nearest: str = "") -> None:
    """Raises UserError that names what does not fit, and the nearest architecture that does."""
    problems = misfit(model, weights)
    if problems:
        raise UserError(
            f"The weights in {source} do not fit the model {name}: {problems}. "
            + (nearest or "Check the architecture and its arguments.")
        )
