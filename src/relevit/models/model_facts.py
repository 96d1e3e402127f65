"""What there is to know of a model before using it: its classes by name, its tokens, its readout, its preprocessing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from timm.data import ImageNetInfo
from torch import nn

from relevit.errors import UserError
from relevit.models import families
from relevit.models.attention import token_layout, unsupported_reason
from relevit.models.families import imagenet_subset
from relevit.models.families.family import TokenLayout, unwrap
from relevit.models.loading import data_config

_HEADS = ("num_heads", "num_attention_heads", "heads")


def class_name(model: nn.Module, index: int) -> str:
    """A class with its index, for people: from the model's own labels, or timm's lists of ImageNet's classes."""
    labels = _own_labels(model)
    if labels is not None:
        return f"{labels[index]} ({index})" if labels[index] != str(index) else str(index)
    known = _imagenet(model)
    if known is not None:
        return f"{known.index_to_description(index).split(',')[0]} ({known.index_to_label_name(index)}, {index})"
    return str(index)


def class_number(model: nn.Module, name: str) -> int:
    """The index of a class that is named by its index, its label (such as a wnid) or a name of it.

    Raises UserError for a name that is no class of the model, or that several classes bear.
    """
    classes = families.class_count(model) or 0
    labels, known = _own_labels(model), _imagenet(model)
    if labels is not None and name in labels:
        return labels.index(name)
    if name.isdecimal():
        if int(name) >= classes:
            raise UserError(f"class {name} is outside the model's classes 0 to {classes - 1}")
        return int(name)
    if known is not None:
        named = [
            i
            for i in range(classes)
            if name == known.index_to_label_name(i)
            or name.lower() in [word.strip().lower() for word in known.index_to_description(i).split(",")]
        ]
        if len(named) == 1:
            return named[0]
        if named:
            raise UserError(f"{name!r} names several classes ({', '.join(map(str, named))}): give the index of one")
    raise UserError(
        f"{name!r} is no class of the model: give a class index from 0 to {classes - 1}, or a label of the model"
    )


def model_facts(
    model: nn.Module,
    *,
    input_size: tuple[int, int] | None = None,
    protocol: str = "standard",
) -> Iterator[tuple[str, str]]:
    """Pairs (name, value) for people; `input_size` is (height, width), by default the model's own."""
    reason = unsupported_reason(model)
    config = data_config(model, protocol)
    height, width = input_size or config["input_size"][1:]
    yield "supported", "yes" if reason is None else f"no: {reason}"
    yield "library", families.of_module(model).name
    yield "class", type(model).__name__
    yield "parameters", f"{sum(p.numel() for p in model.parameters()):,}"
    count = families.class_count(model)
    named = families.labels(model)
    names = f", {named[min(named)]} to {named[max(named)]}" if named else ""
    yield "classes", "unknown" if count is None else f"{count}{names}"
    if reason is None:
        try:
            layout = token_layout(model, height, width)
        except UserError as error:
            yield "tokens", f"none for this size: {error}"
        else:
            rows, columns = layout.grid
            yield "input", f"{height} x {width} pixels (height x width)"
            yield (
                "tokens",
                f"{layout.prefix} prefix + {rows} x {columns} patches{f' + {layout.suffix}' if layout.suffix else ''} = {layout.tokens}",
            )
            yield "readout", _readout(layout)
            yield "readout known", layout.found
        blocks = families.of_module(model).blocks(unwrap(model))
        parts = [part for part in blocks[0].modules() for name in _HEADS if isinstance(getattr(part, name, None), int)]
        heads = next(
            (getattr(parts[0], name) for name in _HEADS if parts and hasattr(parts[0], name)), "an unknown number of"
        )
        yield "blocks", f"{len(blocks)} with {heads} heads"
    yield "resize and crop", _crop(config)
    yield "normalisation", f"mean {_numbers(config['mean'])}, standard deviation {_numbers(config['std'])}"


def _readout(layout: TokenLayout) -> str:
    """Which tokens the logits read, in words."""
    if layout.pooled:
        return "the row of the pooling attention, which counts as the last layer"
    parts = [
        f"the row of {branch.what}" if branch.stop - branch.start == 1 else f"the mean over the rows of {branch.what}"
        for branch in layout.readout
    ]
    if len(parts) == 1:
        return parts[0]
    return ", ".join(f"{branch.share:.0%} {part}" for branch, part in zip(layout.readout, parts, strict=True))


def _crop(config: dict) -> str:
    height, width = config["input_size"][1:]
    share, mode = config["crop_pct"], config["crop_mode"]
    before = f"{math.floor(height / share)} x {math.floor(width / share)}"
    how = {"center": "short side to fill", "squash": "squashed to", "border": "long side to fit"}[mode]
    return f"{how} {before} ({config['interpolation']}), centre crop {height} x {width}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _own_labels(model: nn.Module) -> list[str] | None:
    """The labels that a model's config gives, if there is one for each class."""
    names = families.labels(model)
    return [names[index] for index in sorted(names)] if names and len(names) == families.class_count(model) else None


def _imagenet(model: nn.Module) -> ImageNetInfo | None:
    """timm's class list for a model of ImageNet (1k, 12k, 21k) by its number of classes."""
    subset = imagenet_subset(model)
    return _class_list(subset) if subset else None


@lru_cache
def _class_list(subset: str) -> ImageNetInfo:
    return ImageNetInfo(subset)
