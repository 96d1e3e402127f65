"""Attention maps of a vision transformer as graph tensors, and the token layout that they speak about.

`capture(model)` lets the library's own modules run as they are: only their calls of `scaled_dot_product_attention` are answered
here, by a softmax whose result stays in the graph. Nothing of the model is copied or replaced, and everything that is
touched (hooks, fused-attention flags) is as before when the context ends, also after an exception.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from relevit.errors import UserError
from relevit.models.families import of_module
from relevit.models.families.family import TokenLayout, eager, unwrap, wrapper_reason
from relevit.models.multi_head import SOFTMAX, multi_head_attention
from relevit.models.recomputation import recomputed_within


@dataclass
class Captured:
    """What `capture` yields: the attention maps of the latest forward pass, first block first, each
    (batch, heads, queries, keys) after the softmax and before dropout; a pooling attention comes last."""

    maps: list[Any] = field(default_factory=list)
    batch: int = 1

    def begin(self, module: nn.Module, args: Any) -> None:
        """A forward pass begins."""
        self.maps.clear()
        self.batch = next((len(one) for one in args if isinstance(one, Tensor)), 1)


Own = Callable[[Tensor], tuple[Tensor, Any]]


def attention_modules(model: nn.Module, *, readout: bool = True) -> list[nn.Module]:
    """The modules that compute a global attention map, in the order of the forward pass; the pooling attention last.

    Raises UserError where `unsupported_reason` has something to say.
    """
    reason = unsupported_reason(model, readout=readout)
    if reason is not None:
        raise UserError(reason)
    return of_module(model).attentions(unwrap(model))


def unsupported_reason(model: nn.Module, *, readout: bool = True) -> str | None:
    """None for a model that relevance maps can be computed of, else one sentence that says why not and what is supported.

    readout=False asks only for what the blocks need: a backbone without a classifier, or with any pooling, will do.
    """
    inner = unwrap(model)
    return wrapper_reason(model) or of_module(inner).unsupported_reason(inner, readout=readout)


def token_layout(model: nn.Module, height: int, width: int) -> TokenLayout:
    """The layout of the tokens for images of height x width pixels.

    Raises UserError for a model that is not supported or that does not accept this image size.
    """
    attention_modules(model)
    return of_module(model).layout(unwrap(model), height, width)


def patch_grid(model: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the patches of an image of height x width pixels.

    Raises UserError for a model without a readable attention and for an image size that it does not accept.
    """
    attention_modules(model, readout=False)
    return of_module(model).grid(unwrap(model), height, width)


def patch_size(model: nn.Module) -> tuple[int, int]:
    """Height and width of a patch, in pixels. Raises UserError for a model without a readable attention."""
    attention_modules(model, readout=False)
    return of_module(model).patch_size(unwrap(model))


def prepare_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, float]:
    """The arguments of `scaled_dot_product_attention` in plain form: (query, key, value, additive bias or None, scale)."""
    device = query.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        query, key, value = (x.to(dtype) if x.dtype == torch.float32 else x for x in (query, key, value))
    if enable_gqa and key.shape[1] != query.shape[1]:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    if is_causal:
        attn_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -math.inf)
        attn_mask = attn_mask[(None,) * (4 - attn_mask.ndim)]
    return query, key, value, attn_mask, 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale


def composed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """`scaled_dot_product_attention` of torch's own operations: its output (batch, heads, queries, dim), and the weights
    (batch, heads, queries, keys) after the softmax and before dropout, in float32 at least and in the graph."""
    query, key, value, bias, scale = prepare_attention(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    scores = (query * scale) @ key.transpose(-2, -1)
    scores = scores if bias is None else scores + bias
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    if torch.is_grad_enabled() and not weights.requires_grad:
        weights.requires_grad_()
    kept = F.dropout(weights, dropout_p) if dropout_p > 0.0 else weights
    return kept.to(value.dtype) @ value, weights


@contextmanager
def capture(
    model: nn.Module,
    *,
    attend: Callable[..., tuple[Tensor, Any]] = composed_attention,
    own: Own = lambda weights: (weights, weights),
    readout: bool = True,
) -> Iterator[Captured]:
    """Within the context, every forward pass of the model leaves its attention maps in `.maps` as graph tensors.

    A map that would need no gradient (frozen weights) is made to require one where gradients are enabled, so that the
    derivative of a logit with respect to it exists.

    attend: takes the arguments of `scaled_dot_product_attention` and returns its output and what `.maps` is to hold.
    own: takes the weights (batch, heads, queries, keys) of a module that computes its softmax by itself, and returns those that it
        goes on with and what `.maps` is to hold.
    readout: False accepts a model without a classifier or with any pooling, too (see `unsupported_reason`).
    Blocks that are computed again in a backward pass (gradient checkpointing) are answered there as here; their maps stay.
    Raises UserError for a model that is not supported, or that drops patches in training.
    """
    modules = attention_modules(model, readout=readout)
    inner, family = unwrap(model), of_module(model)
    obstacle = family.obstacle(inner)
    if obstacle is not None:
        raise UserError(obstacle)
    captured = Captured()
    with inner.register_forward_pre_hook(captured.begin), _answered(inner, modules, attend, own, captured):
        yield captured


@contextmanager
def _answered(
    inner: nn.Module,
    modules: list[nn.Module],
    attend: Callable[..., tuple[Tensor, Any]],
    own: Own,
    captured: Captured,
    inside: bool = False,
) -> Iterator[None]:
    """The context of `capture` for these modules, which adds to `captured`; also where blocks are computed again.

    inside: whether that begins in the midst of an attention module, which checkpoints its own code.
    """
    interception = _Interception(captured, attend, own, inside)
    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(interception.enter))
            handles.append(module.register_forward_hook(interception.leave, always_call=True))
        again = recomputed_within(
            lambda: partial(_answered, inner, modules, attend, own, Captured(batch=captured.batch), interception.inside)
        )
        with eager(inner), of_module(inner).visible(inner), interception, again:
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Interception(TorchFunctionMode):
    """Answers scaled_dot_product_attention and multi_head_attention_forward inside the attention modules, and only there."""

    def __init__(
        self, captured: Captured, attend: Callable[..., tuple[Tensor, Any]], own: Own, inside: bool = False
    ) -> None:
        super().__init__()
        self.captured, self.attend, self.own, self.inside = captured, attend, own, inside

    def enter(self, module: nn.Module, args: Any) -> None:
        self.inside = True

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.inside = False

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside and func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if self.inside and func is F.multi_head_attention_forward:
            return multi_head_attention(self._attention, *args, **kwargs)
        result = func(*args, **kwargs)
        return self._own_softmax(result) if self.inside and func in SOFTMAX else result

    def _own_softmax(self, weights: Tensor) -> Tensor:
        """A softmax over tokens in the module's own code, (batch, heads, queries, keys) or with the first two as one; another one
        is left alone."""
        shape = weights.shape
        if weights.ndim not in (3, 4) or shape[-1] != shape[-2] or shape[-1] == 1:
            return weights
        whole = weights if weights.ndim == 4 else weights.unflatten(0, (self.captured.batch, -1))
        if torch.is_grad_enabled() and not whole.requires_grad:
            whole.requires_grad_()
        whole, kept = self.own(whole)
        self.captured.maps.append(kept)
        return whole.view(shape)

    def _attention(self, *args: Any, **kwargs: Any) -> Tensor:
        output, weights = self.attend(*args, **kwargs)
        self.captured.maps.append(weights)
        return output


def check_channels(model: nn.Module, channels: int) -> None:
    """Raises UserError where images have another number of channels than the model's patch embedding takes."""
    taken = of_module(model).channels(unwrap(model))
    if taken is not None and taken != channels:
        raise UserError(f"images have {channels} channels, but the model takes {taken}")
