"""Patch features of a vision transformer: keys, queries, values or tokens of one block, for images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.attention import attention_modules, capture, check_channels, patch_grid
from relevit.models.families import of_module
from relevit.models.families.family import Family, unwrap
from relevit.models.working import working

Kind = Literal["key", "query", "value", "token"]
KINDS = ("key", "query", "value", "token")


def patch_features(
    model: nn.Module, images: Float[Tensor, "batch channels height width"], *, kind: Kind = "key", block: int = -1
) -> tuple[Float[Tensor, "batch patches dim"], tuple[int, int]]:
    """The features of one block at the patches (batch, patches, dim), row by row, and the patch grid (rows, columns).

    model: any model that `relevit.models.attention` supports, with or without a classifier. images: normalised as the model wants
    it; of the size that it accepts (`accept_size` makes it accept another).

    kind: "key", "query" and "value" are what the attention of the block gets, the heads side by side, the key and query after
    the model's normalisation of them, if it has one, and before the rotation that EVA-02 and DINOv3 give them: rotated ones
    of like patches differ with their distance. "token" is the block's output, before the model's last norm. block: counted
    from 0, or from the end if negative. TokenCut takes the keys of the last block.

    The forward pass ends at that block, runs in evaluation mode and without gradients, with the fused attention. The model is
    as before afterwards, also after an exception.

    Raises UserError for an unsupported model, another kind, a block that the model has not, images of another size or
    number of channels.
    """
    if kind not in KINDS:
        raise UserError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    modules = attention_modules(model, readout=False)
    inner, family = unwrap(model), of_module(model)
    depth = len(family.blocks(inner))
    if not -depth <= block < depth:
        raise UserError(f"block is {block}, but the model has {depth} blocks: 0 to {depth - 1}, or -{depth} to -1")
    if images.ndim != 4 or not images.is_floating_point():
        raise UserError(
            f"images are {images.dtype} of shape {tuple(images.shape)}, but must be normalised floating-point numbers of "
            "shape (batch, channels, height, width)"
        )
    check_channels(model, images.shape[1])
    grid = patch_grid(model, *images.shape[-2:])
    if min(grid) < 1:
        raise UserError(f"images are {images.shape[-2]} x {images.shape[-1]} pixels, which is less than one patch")

    found = _run_until(family, inner, images, kind, block % depth, modules[block % depth])  # (batch, tokens, dim)
    first = family.prefix(inner)
    return found[:, first : first + grid[0] * grid[1]].contiguous(), grid


class _Reached(Exception):
    """Ends the forward pass where the features are known."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def _run_until(
    family: Family, inner: nn.Module, images: Tensor, kind: Kind, block: int, attention: nn.Module
) -> Tensor:
    """The features of all tokens, (batch, tokens, dim)."""
    met = 0

    def attend(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        nonlocal met
        if met == block and kind != "token":
            given = dict(zip(("query", "key", "value"), args, strict=False), **kwargs)
            raise _Reached(_side_by_side(given[kind]))
        met += 1
        return F.scaled_dot_product_attention(*args, **kwargs), None

    def reached(module: nn.Module, args: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        raise _Reached(_side_by_side(output) if output.ndim == 4 else output)

    hooked: nn.Module | None = None
    if kind == "token":
        hooked = family.blocks(inner)[block]
    elif kind != "value":
        hooked = family.before_rotation(inner, attention, kind)

    def unseen(weights: Tensor) -> tuple[Tensor, None]:
        nonlocal met
        if met == block and kind != "token":
            raise UserError(
                f"the attention of {type(attention).__name__} is computed by a softmax of its own, which shows no {kind}: choose the "
                "features 'token'"
            )
        met += 1
        return weights, None

    with working(inner), capture(inner, attend=attend, own=unseen, readout=False), torch.no_grad():
        handle = hooked.register_forward_hook(reached) if hooked is not None else None
        try:
            family.run_blocks(inner, images)
        except _Reached as end:
            return end.features
        finally:
            if handle is not None:
                handle.remove()
    raise RuntimeError(f"the forward pass of {type(inner).__name__} did not come by block {block}")


def _side_by_side(heads: Tensor) -> Tensor:
    """(batch, heads, tokens, head_dim) to (batch, tokens, heads * head_dim)."""
    return heads.transpose(1, 2).flatten(2)


@contextmanager
def accept_size(model: nn.Module, height: int, width: int) -> Iterator[None]:
    """Within the context the model takes images of height x width pixels; afterwards it is as before.

    The library's own resampling of position embeddings and tables of relative positions is used. A model that takes any size by
    itself is left alone. Parameters that are replaced within the context are put back, the same objects, so that an optimizer
    keeps hold of them; what was changed in between on the resampled ones is lost.

    Raises UserError for a size that is no multiple of the patch, and for a model that cannot be resized.
    """
    attention_modules(model, readout=False)
    with of_module(model).resized(unwrap(model), height, width):
        yield
