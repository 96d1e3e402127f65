"""`torch.nn.MultiheadAttention` step by step, so that the attention within can be taken.

torch calls the whole of it as one function, `F.multi_head_attention_forward`: whoever intercepts calls never sees what is inside.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from relevit.errors import UserError

SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)
"""What a module that computes its attention by itself makes the weights with."""
_SIGNATURE = inspect.signature(F.multi_head_attention_forward)
_UNUSUAL = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")


def multi_head_attention(attend: Callable[..., Tensor], *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """The result of `F.multi_head_attention_forward` with these arguments, its attention computed by `attend`; no weights.

    attend: takes (query, key, value, bias or None, probability of dropout), each (batch, heads, tokens, dim), and returns the
    output. Raises UserError for additional keys and values and for padding, which no image has.
    """
    given = _SIGNATURE.bind(*args, **kwargs)
    given.apply_defaults()
    a = given.arguments
    if a["add_zero_attn"] or any(a[name] is not None for name in _UNUSUAL):
        raise UserError("attention with added keys, or with padding, has no map over the patches of an image")
    batched = a["query"].ndim == 3
    query, key, value = (a[name] if batched else a[name][:, None] for name in ("query", "key", "value"))
    heads = a["num_heads"]
    parts = [_apart(part, heads) for part in _projected(a, query, key, value)]
    mask = a["attn_mask"]
    if mask is not None:
        if mask.dtype == torch.bool:  # True is shut here, and open in scaled_dot_product_attention
            mask = ~mask
        mask = mask.unflatten(0, (-1, heads)) if mask.ndim == 3 else mask[None, None]
    output = attend(*parts, mask, a["dropout_p"] if a["training"] else 0.0)
    together = output.permute(2, 0, 1, 3).flatten(2)  # (batch, heads, tokens, dim) -> (tokens, batch, heads * dim)
    mixed = F.linear(together, a["out_proj_weight"], a["out_proj_bias"])
    return mixed if batched else mixed[:, 0], None


def _projected(a: dict[str, Any], query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """Query, key and value after their projections, (tokens, batch, dim)."""
    bias = a["in_proj_bias"]
    if not a["use_separate_proj_weight"] and a["query"] is a["key"] is a["value"]:
        return F.linear(query, a["in_proj_weight"], bias).chunk(3, dim=-1)
    biases = (None, None, None) if bias is None else bias.chunk(3)
    if a["use_separate_proj_weight"]:
        weights = tuple(a[f"{name}_proj_weight"] for name in "qkv")
    else:
        weights = a["in_proj_weight"].chunk(3)
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))


def _apart(x: Float[Tensor, "tokens batch dim"], heads: int) -> Float[Tensor, "batch heads tokens each"]:
    return x.unflatten(2, (heads, -1)).permute(1, 2, 0, 3)
