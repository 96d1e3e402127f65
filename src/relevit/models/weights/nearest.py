"""Which of timm's vision transformers has the shapes of given weights."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Collection, Iterator, Mapping
from types import CodeType
from typing import Any, NamedTuple

import timm
from timm.models import model_entrypoint
from torch import Tensor

from relevit.models.weights.fitting import Head, classes_in, head_names, head_of
from relevit.models.weights.sets import prefixes
from relevit.models.weights.shapes import shapes_only

_HOMES = ("vision_transformer", "deit", "beit", "eva", "vision_transformer_relpos")
_DEFAULTS = {
    "embed_dim": 768,
    "depth": 12,
    "patch_size": 16,
}  # of timm's vision transformers, which no definition has to repeat
_MOST_BUILT, _MOST_TOLD = 6, 3


def nearest_architecture(tensors: Mapping[str, Tensor], like: str = "") -> str:
    """One sentence on the architectures that a container's names and shapes are those of; empty where there is none.

    Built, without memory, are only those whose width and depth are among the numbers of timm's own definition: first with one
    block, which is soon done, then as a whole. like: the name that the user gave, which close names are preferred to.
    """
    sizes = _sizes(tensors)
    if sizes is None:
        return ""
    names = sorted(_candidates(sizes), key=lambda name: -difflib.SequenceMatcher(None, name, like).ratio())
    first = [name for name in names if _fits(name, tensors, depth=1) is not None]
    fitting = [(name, found) for name in first[:_MOST_BUILT] if (found := _fits(name, tensors)) is not None]
    exact = [(name, found) for name, found in fitting if found.exact] or fitting
    if not exact:
        return ""
    classes = exact[0][1].classes
    end = "without a head" if classes is None else f"with {classes} classes"
    return f"These are the shapes of {' or '.join(name for name, _ in exact[:_MOST_TOLD])} {end}."


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Width, depth and patch size by the weights; None where these are not called as in timm."""
    patches = next((value for name, value in tensors.items() if name.endswith("patch_embed.proj.weight")), None)
    depth = _depth(tensors)
    if patches is None or depth is None or patches.ndim != 4:
        return None
    return {"embed_dim": patches.shape[0], "depth": depth, "patch_size": patches.shape[-1]}


def _depth(tensors: Collection[str]) -> int | None:
    numbers = [name.split("blocks.", 1)[1].split(".")[0] for name in tensors if "blocks." in name]
    return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1 or None


def _candidates(sizes: Mapping[str, int]) -> Iterator[str]:
    """Names of timm's vision transformers whose definitions have these numbers."""
    for name in dict.fromkeys(name for home in _HOMES for name in timm.list_models(module=home)):
        constants = set(_constants(inspect.unwrap(model_entrypoint(name)).__code__))
        if all(size in constants or (key not in constants and size == _DEFAULTS[key]) for key, size in sizes.items()):
            yield name


def _constants(code: CodeType) -> Iterator[int | str]:
    """The whole numbers and the words among a function's constants."""
    todo: list[Any] = list(code.co_consts)
    while todo:
        constant = todo.pop()
        if isinstance(constant, tuple):
            todo += constant
        elif isinstance(constant, int | str) and not isinstance(constant, bool):
            yield constant


class Fit(NamedTuple):
    """An architecture that has given weights: whether exactly so or with another number of patches, and the head's classes."""

    exact: bool
    classes: int | None


def _fits(name: str, tensors: Mapping[str, Tensor], depth: int | None = None) -> Fit | None:
    """Whether an architecture has these weights but for the head and the number of patches; None where it has not.

    depth: builds so many blocks, and compares no more of them."""
    arguments: dict[str, Any] = {} if depth is None else {"depth": depth}
    with shapes_only(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = timm.create_model(name, pretrained=False, **arguments)
        except Exception:
            return None if depth is None else Fit(False, None)  # the whole will tell
    own = model.state_dict()
    counts = prefixes(tensors, own)
    if not counts:
        return None
    prefix = max(counts, key=lambda start: counts[start])
    weights = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    head = head_of(model) or Head(head_names(model), 0)
    left_out = tuple(f"{layer}." for layer in head.names)
    left_out += () if depth is None else tuple(f"blocks.{number}." for number in range(depth, _depth(weights) or 0))
    differing = {
        key
        for key in own.keys() | weights.keys()
        if not key.startswith(left_out)
        and (key not in own or key not in weights or own[key].shape != weights[key].shape)
    }
    resized = {"pos_embed"} & differing & own.keys() & weights.keys()
    return Fit(not differing, classes_in(weights, head)) if differing == resized else None
