"""A model's forward pass, and beside it one that is linear in the pixels, whose derivative makes the rules of LRP.

A `Traced` tensor stands for two: `value`, what the model computes, and `linear`, a linear function of the pixels with
coefficients made of values. Linear operations do the same to both; each other operation has a rule that says how `linear`
goes on. LRP with relevance R_j = y_j g_j of an output is R_i = x_i dlinear_j/dx_i g_j of an input, so one backward pass
through `linear` gives the relevance of all pixels. As the coefficients are values, with a graph of their own, that backward
pass can be differentiated by the weights, exactly. The model itself is not touched: torch asks `Traced` at each operation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from relevit.errors import UserError
from relevit.models.attention import prepare_attention
from relevit.models.multi_head import multi_head_attention


class Traced(Tensor):
    """`linear` beside the value that the tensor itself holds; differentiable: whether coefficients keep their graph."""

    linear: Tensor
    differentiable: bool

    @property
    def value(self) -> Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            return self.as_subclass(Tensor)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        if name in _RULES:
            return _RULES[name](func, *args, **kwargs)
        first = next(one for one in tree_leaves((args, kwargs)) if isinstance(one, Traced))
        with torch._C.DisableTorchFunctionSubclass():
            values = func(*_values(args), **_values(kwargs))
        if name in _PLAIN or not any(isinstance(one, Tensor) for one in tree_leaves(values)):
            return values
        if name not in _LINEAR:
            raise UserError(f"attn_lrp has no rule for the operation {name} of this model: choose another method")
        with torch._C.DisableTorchFunctionSubclass(), torch.enable_grad():
            linear = func(*_linear(args, first), **_linear(kwargs, first))
        return tree_map(lambda value, other: _pair(value, other, first), values, linear)


def linearised(value: Tensor, linear: Tensor, *, differentiable: bool) -> Traced:
    """The two as one tensor of the same shape; what is computed of it by torch is `Traced` too."""
    traced = value.as_subclass(Traced)
    traced.linear, traced.differentiable = linear, differentiable
    return traced


def _pair(value: Any, linear: Any, like: Traced) -> Any:
    return linearised(value, linear, differentiable=like.differentiable) if isinstance(value, Tensor) else value


def _values(tree: Any) -> Any:
    return tree_map(lambda one: one.value if isinstance(one, Traced) else one, tree)


def _linear(tree: Any, like: Traced) -> Any:
    """`linear` of what is traced, and of other tensors (weights, buffers) the values, as coefficients."""
    return tree_map(lambda one: one.linear if isinstance(one, Traced) else _coefficient(one, like), tree)


def _coefficient(one: Any, like: Traced) -> Any:
    return one if like.differentiable or not isinstance(one, Tensor) else one.detach()


def _rule(like: Traced, value: Tensor, linear: Callable[[Callable[[Any], Any]], Tensor]) -> Traced:
    """`value` with what `linear` makes of coefficients, which it wraps by the function that it is given."""
    with torch._C.DisableTorchFunctionSubclass(), torch.enable_grad():
        return linearised(value, linear(lambda one: _coefficient(one, like)), differentiable=like.differentiable)


def _product(func: Callable[..., Tensor], left: Any, right: Any) -> Traced:
    """Each of two activations gets half of a product's relevance (AttnLRP, Proposition 3.2 and 3.3); a weight or a number gets none."""
    with torch._C.DisableTorchFunctionSubclass():
        value = func(*_values((left, right)))
    if not (isinstance(left, Traced) and isinstance(right, Traced)):
        like = left if isinstance(left, Traced) else right
        return _rule(like, value, lambda c: func(*_linear((left, right), like)))
    a, b = left, right
    return _rule(a, value, lambda c: 0.5 * (func(a.linear, c(b.value)) + func(c(a.value), b.linear).to(value.dtype)))


def _division(func: Callable[..., Tensor], left: Any, right: Any, **kwargs: Any) -> Traced:
    """What is divided by is a coefficient, as in a normalisation (Proposition 3.4)."""
    if not isinstance(left, Traced):
        raise UserError("attn_lrp has no rule for a division by activations in this model: choose another method")
    with torch._C.DisableTorchFunctionSubclass():
        value = func(*_values((left, right)), **kwargs)
    return _rule(left, value, lambda c: func(left.linear, c(right.value if isinstance(right, Traced) else right)))


def _normalise(func: Callable[..., Tensor], source: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Traced:
    norm = source.value.norm(p, dim, keepdim=True).clamp_min(eps)  # type: ignore[attr-defined]
    return source / norm  # type: ignore[return-value]


def _layer_norm(
    func: Callable[..., Tensor],
    source: Traced,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Traced:
    """Identity rule: the standard deviation is a coefficient, the mean is linear (Proposition 3.4)."""
    with torch._C.DisableTorchFunctionSubclass():
        value = func(source.value, normalized_shape, weight, bias, eps)
        dims = tuple(range(-len(normalized_shape), 0))
        wide = source.value.to(torch.promote_types(source.value.dtype, torch.float32))
        scale = (wide.var(dim=dims, correction=0, keepdim=True) + eps).rsqrt()

    def linear(c: Callable[[Any], Any]) -> Tensor:
        scaled = (source.linear - source.linear.mean(dim=dims, keepdim=True)) * c(scale)
        return (scaled if weight is None else scaled * c(weight)).to(value.dtype)

    return _rule(source, value, linear)


def _rms_norm(
    func: Callable[..., Tensor],
    source: Traced,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Traced:
    """Identity rule: the root of the mean square is a coefficient (Proposition 3.4)."""
    with torch._C.DisableTorchFunctionSubclass():
        value = func(source.value, normalized_shape, weight, eps)
        wide = source.value.to(torch.promote_types(source.value.dtype, torch.float32))
        least = torch.finfo(source.value.dtype).eps if eps is None else eps
        square = wide.square().mean(dim=tuple(range(-len(normalized_shape), 0)), keepdim=True)
        scale = (square + least).rsqrt()

    def linear(c: Callable[[Any], Any]) -> Tensor:
        scaled = source.linear * c(scale)
        return (scaled if weight is None else scaled * c(weight)).to(value.dtype)

    return _rule(source, value, linear)


def _elementwise(at_zero: float) -> Callable[..., Traced]:
    """Identity rule: the input's relevance is the output's, so the coefficient is f(x) / x; at 0, `at_zero`."""

    def rule(func: Callable[..., Tensor], source: Traced, *args: Any, **kwargs: Any) -> Traced:
        with torch._C.DisableTorchFunctionSubclass():
            kwargs.pop("inplace", None)
            value = func(source.value, *args, **kwargs)
            zero = source.value == 0
            slope = torch.where(zero, at_zero, value / torch.where(zero, 1.0, source.value))
        return _rule(source, value, lambda c: source.linear * c(slope))

    return rule


def _softmax(func: Callable[..., Tensor], source: Traced, dim: int = -1, **kwargs: Any) -> Traced:
    """Taylor rule: the derivative at the value (Proposition 3.1)."""
    with torch._C.DisableTorchFunctionSubclass():
        kwargs.pop("_stacklevel", None)
        value = torch.softmax(source.value, dim, **kwargs)

    def linear(c: Callable[[Any], Any]) -> Tensor:
        given = torch.where(c(value) > 0, source.linear.to(value.dtype), 0.0)  # a masked score is minus infinity
        return c(value) * (given - (c(value) * given).sum(dim=dim, keepdim=True))

    return _rule(source, value, linear)


def _attention(
    func: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Of operations that have rules: two products of activations, and the softmax."""
    query, key, value, bias, scale = prepare_attention(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    scores = (query * scale) @ key.transpose(-2, -1)
    scores = scores if bias is None else scores + bias
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    return F.dropout(weights, dropout_p).to(value.dtype) @ value


def _multi_head(func: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """Its projections, and attention as above."""
    return multi_head_attention(partial(_attention, func), *args, **kwargs)


def _dropout(
    func: Callable[..., Tensor], source: Traced, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Traced:
    if not training or p == 0.0:
        return source
    with torch._C.DisableTorchFunctionSubclass():
        kept = func(torch.ones_like(source.value, requires_grad=False), p, training)
        value = source.value * kept
    return _rule(source, value, lambda c: source.linear * kept)


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("matmul", "__matmul__", "__rmatmul__", "bmm", "mul", "__mul__", "__rmul__", "multiply"), _product),
    **dict.fromkeys(("div", "true_divide", "__truediv__"), _division),
    "normalize": _normalise,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "gelu": _elementwise(0.5),
    "silu": _elementwise(0.5),
    "relu": _elementwise(0.0),
    "tanh": _elementwise(1.0),
    "sigmoid": _elementwise(0.0),
    "softmax": _softmax,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head,
    "dropout": _dropout,
}  # fmt: skip
_LINEAR = frozenset(
    "__get__ __getitem__ linear conv2d add __add__ __radd__ __iadd__ add_ sub __sub__ __rsub__ rsub subtract neg __neg__ reshape view "
    "flatten unflatten permute transpose swapaxes squeeze unsqueeze expand expand_as repeat repeat_interleave contiguous "
    "clone to type_as float half bfloat16 double unbind chunk split tensor_split cat concat stack mean sum pad roll flip narrow select "
    "detach interpolate avg_pool2d".split()
)
"""Operations that do to `linear` what they do to `value`."""
_PLAIN = frozenset(
    "new_empty new_zeros new_ones new_full new_tensor empty_like zeros_like ones_like full_like rand_like randn_like".split()
)
"""Operations that take from a tensor no more than its shape and type."""
