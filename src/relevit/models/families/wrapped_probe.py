"""Facts of an unknown module, found by running it: which calls are attention, where the patches are, what the logits read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from relevit.errors import UserError
from relevit.models.families.family import Branch
from relevit.models.families.wrapped import select
from relevit.models.multi_head import SOFTMAX, multi_head_attention

_PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm, torch.einsum)
_ALIKE = 3.0
"""Tokens whose derivatives differ by less than this factor are read alike."""


@dataclass
class Call:
    """One attention of a forward pass.

    module: the name of the innermost module that computes it. tokens: queries and keys. own: a quantity of each token that
    depends on no other token (batch, heads, tokens). output: (..., tokens, dim).
    """

    module: str
    tokens: tuple[int, int]
    own: Tensor
    output: Tensor | None = None


class Watch(TorchFunctionMode):
    """Notes every call within a forward pass that is attention; `stop` ends the pass at the first of them."""

    def __init__(self, module: nn.Module, stop: bool = False) -> None:
        super().__init__()
        self.root, self.stop, self.calls, self.stack = module, stop, list[Call](), list[str]()
        self.waiting: tuple[Call, torch.Size] | None = None
        self.handles: list[Any] = []

    def __enter__(self) -> Watch:
        def leave(*_: Any) -> None:
            self.stack.pop()

        for name, part in self.root.named_modules():
            if not isinstance(part, nn.Softmax | nn.Dropout | nn.Identity):
                self.handles.append(part.register_forward_pre_hook(lambda *_, name=name: self.stack.append(name)))
                self.handles.append(part.register_forward_hook(leave, always_call=True))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self.handles:
            handle.remove()

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return multi_head_attention(self._attention, *args, **kwargs)
        result = func(*args, **kwargs)
        if func in SOFTMAX and result.ndim in (3, 4) and result.shape[-1] > 1 and result.shape[-2] > 1:
            scores = args[0] if args else kwargs["input"]
            own = scores.diagonal(dim1=-2, dim2=-1)
            self.waiting = (Call(self.stack[-1] if self.stack else "", result.shape[-2:], own), result.shape)
        elif func in _PRODUCTS and self.waiting is not None:
            left = args[1] if func is torch.einsum else args[0]
            if isinstance(left, Tensor) and left.shape == self.waiting[1]:
                call, _ = self.waiting
                call.output, self.waiting = result, None
                self._note(call)
        return result

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output = F.scaled_dot_product_attention(query, key, value, *args, **kwargs)
        count = min(query.shape[-2], key.shape[-2])
        own = (
            (query[..., :count, :] * key[..., :count, :]).sum(dim=-1)
            if query.shape[-3] == key.shape[-3]
            else query[..., 0]
        )
        name = self.stack[-1] if self.stack else ""
        self._note(Call(name, (query.shape[-2], key.shape[-2]), own, output))
        return output

    def _note(self, call: Call) -> None:
        self.calls.append(call)
        if self.stop:
            raise _Stopped


class _Stopped(Exception):
    pass


def attention_calls(module: nn.Module, images: Tensor) -> tuple[Any, list[Call]]:
    """The module's output, and its attention calls in order. Raises UserError where none of them is over all tokens."""
    with Watch(module) as watch:
        output = module(images)
    if any(
        call.output is not None and call.output.ndim == 4 and len(call.output) != len(images) for call in watch.calls
    ):
        raise UserError(
            f"{type(module).__name__} attends within windows, so that no row of attention reaches from what the logits read to all "
            "patches"
        )
    square = [call for call in watch.calls if call.tokens[0] == call.tokens[1]]
    if not square:
        raise UserError(
            f"{type(module).__name__} calls no attention over all its tokens: neither scaled_dot_product_attention, nor "
            "nn.MultiheadAttention, nor a softmax whose result (batch, heads, tokens, tokens) is multiplied with values"
        )
    sizes = Counter(call.tokens[0] for call in square)
    if len(sizes) > 1 or len(square) < len(watch.calls):
        raise UserError(
            f"{type(module).__name__} attends over different numbers of tokens ({', '.join(map(str, sorted({t for c in watch.calls for t in c.tokens})))}): it "
            "pools or windows them, so that there is no one map over the patches"
        )
    return output, square


def token_pixels(module: nn.Module, images: Tensor) -> tuple[list[range | None], list[range | None]]:
    """Of each token, the pixel rows and columns that it depends on where attention begins; None for one that depends on none."""

    def first(pictures: Tensor) -> Tensor:
        with Watch(module, stop=True) as watch:
            try:
                module(pictures)
            except _Stopped:
                pass
        own = watch.calls[0].own
        return own.reshape(len(pictures), -1, own.shape[-1]).double()  # (batch, heads, tokens)

    spans = []
    with torch.no_grad():
        plain = first(images[:1])
        scale = plain.abs().amax() + 1e-12
        for dim in (-2, -1):
            touched: list[list[int]] = [[] for _ in range(plain.shape[-1])]
            for start in range(0, images.shape[dim], 16):
                lines = list(range(start, min(start + 16, images.shape[dim])))
                pictures = images[:1].repeat(len(lines), 1, 1, 1)
                for place, line in enumerate(lines):
                    pictures.select(dim, line)[place] += 3.0
                changed = ((first(pictures) - plain).abs().amax(dim=1) > 1e-5 * scale).tolist()  # (lines, tokens)
                for place, line in enumerate(lines):
                    for token in (t for t, yes in enumerate(changed[place]) if yes):
                        touched[token].append(line)
            spans.append([range(min(each), max(each) + 1) if each else None for each in touched])
    return spans[0], spans[1]


def patch_layout(
    rows: list[range | None], columns: list[range | None], size: tuple[int, int]
) -> tuple[int, int, tuple[int, int]]:
    """Tokens before and after the patches, and the grid. Raises UserError where the patches are in no order of rows."""
    patches = [token for token, span in enumerate(rows) if span is not None and columns[token] is not None]
    if not patches or patches != list(range(patches[0], patches[-1] + 1)):
        raise UserError("the tokens that depend on the image do not lie side by side: give grid, prefix and suffix")
    tops = [(rows[token].start, rows[token].stop) for token in patches]  # type: ignore[union-attr]
    lefts = [(columns[token].start, columns[token].stop) for token in patches]  # type: ignore[union-attr]
    height, width = len(set(tops)), len(set(lefts))
    order = [(top, left) for top in sorted(set(tops)) for left in sorted(set(lefts))]
    if height * width != len(patches) or list(zip(tops, lefts, strict=True)) != order:
        raise UserError("the patches are not in the order of rows, from the top left: give grid, prefix and suffix")
    return patches[0], len(rows) - 1 - patches[-1], (height, width)


def rows_read(logits: Tensor, last: Call) -> Tensor:
    """How much the logits depend on each token after the last attention, (tokens,)."""
    output = last.output
    assert output is not None
    (gradient,) = torch.autograd.grad(logits.square().sum(), output, retain_graph=True)
    tokens = last.tokens[0]
    dim = next(d for d in range(-2, -gradient.ndim - 1, -1) if gradient.shape[d] == tokens)
    return gradient.movedim(dim, 0).flatten(1).norm(dim=1)


def readout_of(read: Tensor, prefix: int, patches: int) -> tuple[Branch, ...]:
    """The branches of a readout with these derivatives: one where all are alike, else the patches and the tokens beside them share
    it equally."""
    tokens = len(read)
    used = (read > 1e-6 * read.max()).tolist()
    groups = [("the patches", prefix, prefix + patches)]
    beside = [t for t in range(tokens) if not prefix <= t < prefix + patches]
    groups += [(f"token {t}", t, t + 1) for t in beside]
    branches = []
    for what, start, stop in sorted(groups, key=lambda group: group[1]):
        inside = used[start:stop]
        if any(inside) and not all(inside):
            raise UserError(
                "the logits read some of the patches and not others: give the readout as weights of the tokens"
            )
        if all(inside) and inside:
            branches.append(Branch("the class token" if (start, stop) == (0, 1) and prefix else what, start, stop))
    means = [float(read[b.start : b.stop].mean()) for b in branches]
    neighbours = all(one.stop == other.start for one, other in pairwise(branches))
    if len(branches) > 1 and neighbours and max(means) < _ALIKE * min(means):
        whole = branches[0].start, branches[-1].stop
        return (Branch("all tokens" if whole == (0, tokens) else "the tokens that are read", *whole),)
    return tuple(branch._replace(share=1 / len(branches)) for branch in branches)


def logits_in(output: Any, given: str | int | None) -> tuple[str | int | None, Tensor]:
    """Where the logits (batch, classes) are in an output: the output itself, "logits", or the first that looks like them."""
    if given is not None:
        return given, select(output, given)
    if isinstance(output, Tensor):
        places: list[str | int | None] = [None]
    elif isinstance(output, Mapping):
        places = [*(["logits"] if "logits" in output else []), *output]
    else:
        places = (
            [*(["logits"] if hasattr(output, "logits") else []), *range(len(output))]
            if hasattr(output, "__len__")
            else ["logits"]
        )
    for place in places:
        one = select(output, place)
        if isinstance(one, Tensor) and one.ndim == 2 and one.is_floating_point():
            return place, one
    raise UserError(
        "the module returns no logits of shape (batch, classes): give output, the key or index of the logits"
    )
