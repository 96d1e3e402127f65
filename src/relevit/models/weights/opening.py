"""From an architecture and a file of weights to a model: the sets found, one chosen, its head, classes and preprocessing read.

Everything that is guessed, resampled or left out is told in `Opened.notes`; what does not fit is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from timm.data import infer_imagenet_subset
from timm.models import get_model_input_config, is_model
from torch import Tensor, nn

from relevit.errors import ArgumentError, UserError
from relevit.models.weights.classes import find_class_names
from relevit.models.weights.fitting import (
    MOST_NAMES,
    Build,
    Head,
    adapted,
    check_fits,
    classes_in,
    converter,
    head_elsewhere,
    head_of,
    is_idle,
    misfit,
    with_head,
)
from relevit.models.weights.nearest import nearest_architecture
from relevit.models.weights.options import FileOptions
from relevit.models.weights.preprocessing import image_size_in, options_in, preprocessing
from relevit.models.weights.reading import Stored, read
from relevit.models.weights.sets import WeightSet, choose, containers, find_sets, prefixes
from relevit.models.weights.shapes import shapes_only

_CONFIGURES = (
    "class_names",
    "mean",
    "std",
    "image_size",
    "resize",
    "interpolation",
)  # what is said to timm's models alone
_OF_OPENAI = {"input_resolution", "context_length", "vocab_size"}


class Opened(NamedTuple):
    """A model with the weights of a file, and how they were found."""

    model: nn.Module
    stored: Stored
    sets: list[WeightSet]
    chosen: WeightSet
    notes: list[str]


def open_weights(
    build: Build,
    architecture: str,
    path: str | os.PathLike[str],
    options: FileOptions,
    arguments: Mapping[str, Any],
    *,
    head: bool = True,
) -> Opened:
    """A model of `architecture` with the weights of a file or folder.

    Args:
        build: makes the model of given arguments, without weights.
        architecture: its name, for people.
        path: the file or folder.
        options: what the user says about the file.
        arguments: the user's for `build`; a `num_classes` other than the file's gives a new, untrained head.
        head: False allows weights without a head: the model then has none.

    Raises:
        UserError: for a file that is no weights, or whose weights do not fit.
    """
    stored = read(path)
    told = options_in(stored)
    arguments = dict(arguments)
    with shapes_only():
        plan = build(arguments)
    _check_options(plan, options)
    if options.image_size is not None:
        arguments["img_size"] = options.image_size
        with shapes_only():
            plan = build(arguments)
    sets = _fitting_sets(stored, plan, architecture, path)
    chosen, notes = choose(sets, options.weights, path)
    arguments |= _variant(plan, chosen, told, arguments)
    untrained = _count_classes(plan, chosen, arguments, path, head, notes)

    model = build(arguments)
    weights = adapted(model, chosen, chosen.container.tensors, notes)
    own = model.state_dict()
    layer = head_of(model) or head_of(plan)
    ends = tuple(f"{name}." for name in layer.names) if layer else ()
    if arguments["num_classes"] == 0 and head_of(model) is not None:
        notes.append(f"{architecture} cannot be had without a head: the model's is new and untrained")
        untrained = True
    if untrained and ends:
        weights = {name: value for name, value in weights.items() if not name.startswith(ends)}
        weights |= {name: value for name, value in own.items() if name.startswith(ends)}
    if misfit(model, weights):
        check_fits(model, weights, path, architecture, nearest_architecture(chosen.container.tensors, architecture))
    model.load_state_dict({**own, **{name: value for name, value in weights.items() if name in own}})
    notes += _left_out(chosen, model) + _number_format(weights, own) + _quick_gelu(model, architecture, chosen)
    notes += _configure(model, stored, told, options)
    return Opened(model, stored, sets, chosen, notes)


def weights_for(
    model: nn.Module, architecture: str, path: str | os.PathLike[str], wanted: str | None
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a file, out of their container and without prefix, for a model whose config is known; and what is to be said.

    Raises UserError where none of its sets of weights has the model's names.
    """
    sets = _fitting_sets(read(path), model, architecture, path)
    chosen, notes = choose(sets, wanted, path)
    return chosen.weights, notes


def _fitting_sets(stored: Stored, plan: nn.Module, architecture: str, path: object) -> list[WeightSet]:
    """The sets with the architecture's names, and of those the ones with its shapes where there are any."""
    own = plan.state_dict()
    sets = find_sets(stored.content, own, converter(plan))
    alike = [each for each in sets if each.converted or 2 * _same_shapes(each, own) >= each.matched]
    if sets:
        return alike or sets
    if not any(containers(stored.content)):
        raise UserError(f"{path} holds no weights: expected tensors by name, or {{'state_dict': ...}}.")
    nearest = max(
        (
            WeightSet(container, prefix, count)
            for container in containers(stored.content)
            for prefix, count in {"": len(container.tensors), **prefixes(container.tensors, own)}.items()
        ),
        key=lambda each: (bool(each.prefix) and each.matched > 1, each.matched),
    )
    hint = nearest_architecture(nearest.container.tensors, architecture)
    check_fits(plan, nearest.weights, path, architecture, hint)
    raise UserError(f"The weights in {path} do not fit the model {architecture}. {hint}")


def _same_shapes(each: WeightSet, own: Mapping[str, Tensor]) -> int:
    return sum(name in own and own[name].shape == value.shape for name, value in each.weights.items())


def _variant(
    plan: nn.Module, chosen: WeightSet, told: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of timm's that the file's names and its training loop's options ask for: the pooling (MAE's fine-tuning reads
    the patches' mean and normalises it by `fc_norm`) and the size of the input."""
    own, weights = plan.state_dict(), chosen.weights
    changes: dict[str, Any] = {}
    if "global_pool" not in arguments and hasattr(plan, "global_pool"):
        if "fc_norm.weight" in weights and "norm.weight" in own and "norm.weight" not in weights:
            changes["global_pool"] = "avg"
        elif "norm.weight" in weights and "fc_norm.weight" in own and "fc_norm.weight" not in weights:
            changes["global_pool"] = "token"
    size = image_size_in(told)
    there, wanted = weights.get("pos_embed"), own.get("pos_embed")
    other = there is not None and wanted is not None and there.shape != wanted.shape
    if size is not None and other and "img_size" not in arguments:
        changes["img_size"] = size
    return changes


def _count_classes(
    plan: nn.Module, chosen: WeightSet, arguments: dict[str, Any], path: object, head: bool, notes: list[str]
) -> bool:
    """Puts the number of classes of the file's head into `arguments`; True where the head is to be a new, untrained one."""
    layer = head_of(plan)
    weights = with_head(chosen.weights, chosen.others, layer, [])
    convert = converter(plan)
    if convert is not None and (chosen.converted or classes_in(weights, layer) is None):
        weights = convert(weights)
    count, wanted = classes_in(weights, layer), arguments.get("num_classes")
    if count is None:
        if wanted is None and head:
            raise UserError(
                f"The weights in {path} have no head: {_no_head(layer)} is missing. Train one with relevit probe, or give "
                "num_classes for a new, untrained one."
            )
        if wanted is None:
            arguments["num_classes"] = 0
            notes.append(f"{path} has no head: the model is the backbone alone")
        elif wanted:
            notes.append(f"{path} has no head: that of the model, for {wanted} classes, is new and untrained")
        return bool(wanted)
    if wanted not in (None, count):
        notes.append(
            f"{path} has a head for {count} classes, which is thrown away: that of the model, for {wanted} classes, is new and "
            "untrained"
            if wanted
            else f"the head of {path}, for {count} classes, is left out"
        )
        return True
    arguments["num_classes"] = count
    return False


def _no_head(layer: Head | None) -> str:
    return " or ".join(f"{name}.weight" for name in layer.names) if layer else "a classifier"


def _left_out(chosen: WeightSet, model: nn.Module) -> list[str]:
    """What of the container is in no place of the model."""
    own = model.state_dict()
    head = head_elsewhere(chosen.weights, chosen.others, head_of(model), [])
    idle = [name for name in chosen.weights if name not in own and is_idle(name)] if not chosen.converted else []
    others = [name for name in chosen.others if head is None or not name.startswith(f"{head}.")]
    layers = sorted({name.split(".")[0] for name in [*idle, *([] if chosen.converted else others)]})
    return [f"left out, since the model has no place for it: {', '.join(layers[:MOST_NAMES])}"] if layers else []


def _number_format(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    kinds = sorted(
        {str(weights[name].dtype).removeprefix("torch.") for name in own if name in weights}
        - {str(value.dtype).removeprefix("torch.") for value in own.values()}
    )
    return [f"the weights are stored as {' and '.join(kinds)}; the model computes in float32"] if kinds else []


def _quick_gelu(model: nn.Module, architecture: str, chosen: WeightSet) -> list[str]:
    """CLIP's weights do not tell with which activation they were trained; OpenAI's was QuickGELU."""
    names = chosen.container.tensors
    if not any("visual" in name.split(".") for name in names) and not chosen.added:
        return []
    if any(type(module).__name__ == "QuickGELU" for module in model.modules()):
        return []
    other = architecture.split(".")[0].replace("_clip_", "_clip_quickgelu_")
    remedy = f": take {other}" if is_model(other) and other != architecture else ""
    if any(name.rsplit(".", 1)[-1] in _OF_OPENAI for name in names):
        return [
            f"warning: these are OpenAI's weights, trained with QuickGELU, and {architecture} computes GELU{remedy}"
        ]
    return [f"{architecture} computes GELU; OpenAI's, DFN's and MetaCLIP's weights were trained with QuickGELU{remedy}"]


def _check_options(plan: nn.Module, options: FileOptions) -> None:
    if not isinstance(getattr(plan, "pretrained_cfg", None), Mapping):
        for name in _CONFIGURES:
            if getattr(options, name) is not None:
                raise ArgumentError(
                    name, "is for timm's models: others have it in their folder or their weights' transforms"
                )


def _configure(model: nn.Module, stored: Stored, told: Mapping[str, Any], options: FileOptions) -> list[str]:
    """Class names and preprocessing into the model's config; what is said about them."""
    base = getattr(model, "pretrained_cfg", None)
    if not isinstance(base, Mapping):
        return ["class names and preprocessing: the library's own for this architecture"]
    count = int(getattr(model, "num_classes", 0))
    size = int(get_model_input_config(model)["input_size"][-1])
    changes, note = preprocessing(stored, told, options, base, size)
    names, origin = find_class_names(stored, count, options.class_names) if count else (None, "")
    config = {**base, **changes, "num_classes": count}
    for key in ("label_names", "label_descriptions"):
        config.pop(key, None)
    if names is not None:
        config["label_names"] = names
    model.pretrained_cfg = config  # type: ignore[assignment]
    if names is None and count:
        known = infer_imagenet_subset(model)
        rest = (
            f"taken to be {known}'s in its order"
            if known
            else f"numbers 0 to {count - 1}; --class-names FILE names them"
        )
        origin = f"{origin or 'class names: none in the file or beside it'}; the {count} classes are {rest}"
    return [note, *([origin] if origin else [])]
