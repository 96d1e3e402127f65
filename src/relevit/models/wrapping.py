"""`relevit.wrap`: any module that classifies images with global self-attention, in whatever code, as a model for every command."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from relevit import terminal
from relevit.errors import UserError
from relevit.models.attention import capture, composed_attention
from relevit.models.families.family import Branch, pair
from relevit.models.families.wrapped import Facts, Wrapped
from relevit.models.families.wrapped_probe import (
    attention_calls,
    logits_in,
    patch_layout,
    readout_of,
    rows_read,
    token_pixels,
)
from relevit.models.working import device_of, working

_READOUTS = ("class token", "patches", "all")
_PREPROCESSING = {
    "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bicubic", "crop_pct": 0.875,
    "crop_mode": "center",
}  # fmt: skip
_STEP, _ENTRIES, _TOLERANCE = 1e-6, 3, 1e-3


def wrap(
    module: nn.Module,
    image_size: int | tuple[int, int],
    *,
    grid: tuple[int, int] | None = None,
    prefix: int | None = None,
    suffix: int | None = None,
    readout: str | Sequence[float] | None = None,
    attentions: Sequence[str] | None = None,
    output: str | int | None = None,
    class_names: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    check: bool = True,
    verbose: bool = True,
) -> Wrapped:
    """A module of any code as a model that relevit explains, fine-tunes and measures.

    One pass with noise finds what has to be known; all of it is told, and can be given by hand instead. The module itself is used,
    not copied: training the result trains it.

    Args:
        module: takes images (batch, channels, height, width), and returns logits, alone or among other things.
        image_size: height and width of the images, or one number for both.
        grid: rows and columns of patches.
        prefix, suffix: tokens before and after the patches.
        readout: what the logits read: "class token", "patches" (their mean), "all" (the mean of all tokens), or a weight for
            every token.
        attentions: names of the modules within which attention is computed, in order.
        output: where the logits are in what the module returns: a key or an index.
        class_names: of the classes, in order.
        preprocessing: mean, std, interpolation, crop_pct and crop_mode of `data_config`; what is left out is as for ImageNet.
        check: whether the facts are checked (`check_wrapped`).
        verbose: whether they are told.

    Raises:
        UserError: for a module without attention over all tokens, facts that cannot be found, and a check that fails.
    """
    height, width = pair(image_size)
    generator = torch.Generator().manual_seed(0)
    like = next(module.parameters())
    with working(module), torch.enable_grad():
        images = torch.randn(2, 3, height, width, generator=generator).to(like.device, like.dtype)
        found = _found(module, images.requires_grad_(), output)
    given = {"grid": grid, "prefix": prefix, "suffix": suffix, "attentions": attentions}
    facts = _with_given(found, given, readout, output)
    if class_names is not None and len(class_names) != facts.class_count:
        raise UserError(f"class_names are {len(class_names)}, but the module has {facts.class_count} classes")
    labels = None if class_names is None else list(class_names)
    wrapped = Wrapped(module, facts, labels, {**_PREPROCESSING, **(preprocessing or {})})
    if verbose:
        terminal.remark(_told(facts, type(module).__name__))
    if check:
        check_wrapped(wrapped, found)
    return wrapped


def _with_given(found: Facts, given: Mapping[str, Any], readout: Any, output: Any) -> Facts:
    """The facts, those that were given in the place of those that were found."""
    everything = {**given, "readout": readout, "output": output}
    how = {name: "found" if value is None else "given" for name, value in everything.items()}
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    facts = replace(found, **{**changes, "how": how})
    if readout is not None:
        facts = replace(facts, readout=_readout(readout, facts))
    (height, width), (rows, columns) = facts.image_size, facts.grid
    return replace(facts, patch_size=(height // rows, width // columns))


def _found(module: nn.Module, images: Tensor, place: str | int | None) -> Facts:
    """The facts of the module, by running it."""
    output, calls = attention_calls(module, images)
    where, logits = logits_in(output, place)
    rows, columns = token_pixels(module, images.detach())
    height, width = images.shape[-2:]
    prefix, suffix, grid = patch_layout(rows, columns, (height, width))
    readout = readout_of(rows_read(logits, calls[-1]), prefix, grid[0] * grid[1])
    names = tuple(dict.fromkeys(call.module for call in calls))
    patch = height // grid[0], width // grid[1]
    return Facts((height, width), patch, grid, prefix, suffix, readout, names, len(calls), where, logits.shape[1], {})


def _readout(given: str | Sequence[float], facts: Facts) -> tuple[Branch, ...]:
    """A readout as it was given."""
    patches = facts.grid[0] * facts.grid[1]
    tokens = facts.prefix + patches + facts.suffix
    if isinstance(given, str):
        spans = {
            "class token": Branch("the class token", 0, 1),
            "patches": Branch("the patches", facts.prefix, facts.prefix + patches),
            "all": Branch("all tokens", 0, tokens),
        }
        if given not in spans:
            raise UserError(
                f"readout must be one of {', '.join(_READOUTS)}, or a weight for every token, not {given!r}"
            )
        return (spans[given],)
    weights = [float(weight) for weight in given]
    if len(weights) != tokens or min(weights) < 0 or not sum(weights) > 0:
        raise UserError(f"readout must be {tokens} weights, none of them negative, one for every token")
    return tuple(
        Branch(f"token {token}", token, token + 1, weight / sum(weights))
        for token, weight in enumerate(weights)
        if weight
    )


def _told(facts: Facts, name: str) -> str:
    parts = {
        "attentions": f"{facts.maps} attention maps in {facts.attentions[0] or 'the module itself'} to {facts.attentions[-1] or 'itself'}",
        "grid": f"{facts.grid[0]} x {facts.grid[1]} patches",
        "prefix": f"{facts.prefix} tokens before the patches",
        "suffix": f"{facts.suffix} after them",
        "readout": "the logits read " + " and ".join(branch.what for branch in facts.readout[:3]),
        "output": f"logits of {facts.class_count} classes" + ("" if facts.output is None else f" in {facts.output!r}"),
    }
    return f"{name}: " + "; ".join(f"{text} ({facts.how.get(key, 'found')})" for key, text in parts.items())


def check_wrapped(model: Wrapped, found: Facts | None = None) -> None:
    """Raises UserError that names the fact that is wrong.

    What was given is held against what a pass finds. Logits with the attention taken out of the pass must be the module's own,
    and the derivative of a logit by single attention weights that of a finite difference, in double precision.
    """
    with working(model):
        dtype = next(model.parameters()).dtype
        double = copy.deepcopy(model).double()
        size = (2, _channels(model), *model.facts.image_size)
        images = torch.randn(size, generator=torch.Generator().manual_seed(1)).to(device_of(model), torch.float64)
        facts = found or _found(model.module, images.to(dtype).requires_grad_(), model.facts.output)
        _check_given(model.facts, facts)
        _check_maps(double, images)


def _channels(model: Wrapped) -> int:
    first: Any = next((m for m in model.module.modules() if isinstance(m, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


def _check_given(given: Facts, found: Facts) -> None:
    for name in ("grid", "prefix", "suffix"):
        if getattr(given, name) != getattr(found, name):
            raise UserError(
                f"the {name} is wrong: given {getattr(given, name)}, but by the pixels that change each token it is {getattr(found, name)}"
            )
    if set(given.attentions) != set(found.attentions):
        raise UserError(
            f"the attentions are wrong: given {', '.join(given.attentions)}, but attention is computed in {', '.join(found.attentions)}"
        )
    tokens = given.prefix + given.suffix + given.grid[0] * given.grid[1]
    sets = [{t for b in facts.readout for t in range(b.start, b.stop)} for facts in (given, found)]
    if sets[0] != sets[1]:
        odd = sorted(sets[0] ^ sets[1])
        raise UserError(
            f"the readout is wrong: by the derivative of the logits, token {odd[0]} of {tokens} is "
            f"{'read' if odd[0] in sets[1] else 'not read'}"
        )


def _check_maps(model: Wrapped, images: Tensor) -> None:
    """Logits and derivatives with the attention taken against those of the module alone."""
    with torch.enable_grad():
        plain = model(images).detach()
        with capture(model) as captured:
            logits = model(images)
        if len(captured.maps) != model.facts.maps:
            raise UserError(
                f"the attentions are wrong: {len(captured.maps)} maps are seen where {model.facts.maps} were found"
            )
        if not torch.allclose(logits, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max())):
            raise UserError(
                "the attentions are wrong: with them taken out of the pass, the logits are not the module's own"
            )
        score = logits[:, 0].sum()
        gradients = torch.autograd.grad(score, captured.maps)
    for number, gradient in enumerate(gradients):
        top = gradient.flatten().abs().topk(min(_ENTRIES, gradient.numel())).indices.tolist()
        for index in top:
            change = [_moved(model, images, number, index, step) for step in (_STEP, -_STEP)]
            wanted, exact = (change[0] - change[1]) / (2 * _STEP), float(gradient.flatten()[index])
            if abs(wanted - exact) > _TOLERANCE * max(abs(exact), 1e-8):
                raise UserError(
                    f"the attentions are wrong: changing a weight of map {number} changes the logit by {wanted:.4g} for each unit, not by "
                    f"its derivative {exact:.4g}; what is taken for attention is used in another way"
                )


def _moved(model: Wrapped, images: Tensor, number: int, index: int, step: float) -> float:
    """The sum of the first logits where one entry of one attention map is changed by `step`."""
    met = 0

    def changed(weights: Tensor) -> Tensor:
        nonlocal met
        if met == number:
            weights = weights.clone()
            weights.view(-1)[index] += step
        met += 1
        return weights

    def attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        _, weights = composed_attention(query, key, value, *args, **kwargs)
        weights = changed(weights)
        return weights @ value, weights

    with torch.no_grad(), capture(model, attend=attend, own=lambda weights: (changed(weights), None)):
        return float(model(images)[:, 0].sum())
