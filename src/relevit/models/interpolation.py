"""A model between two: WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"), original and fine-tuned."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.families import architecture

_NAMED = 5  # tensors that an error names


def interpolate(first: nn.Module, second: nn.Module, alpha: float) -> nn.Module:
    """A new model with the weights (1 - alpha) first + alpha second (Wortsman et al. 2022, Eq. 1).

    Args:
        first, second: models of one architecture; they are left as they are. All else (preprocessing, mode, which weights are
            trained) is as in the first.
        alpha: 0 for the first to 1 for the second, whose weights are then copied bit for bit.

    Each floating-point tensor is mixed in double precision and rounded to its own type; what is equal in both stays equal.
    Raises UserError for an alpha outside of [0, 1], and for models that differ in more than the values of such tensors.
    """
    if isinstance(alpha, bool) or not 0.0 <= alpha <= 1.0:
        raise UserError(f"alpha must be between 0 (the first model) and 1 (the second), not {alpha}")
    check_mixable(first, second)
    mixed = copy.deepcopy(first)
    ours, theirs = mixed.state_dict(), second.state_dict()
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(_mix(tensor, theirs[name], alpha))
    return mixed


def _mix(tensor: Tensor, other: Tensor, alpha: float) -> Tensor:
    if alpha == 0.0 or not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    if alpha == 1.0:
        return other
    other = other.to(tensor.device)
    wide = torch.promote_types(tensor.dtype, torch.float64)
    return torch.lerp(tensor.to(wide), other.to(wide), alpha)


def check_mixable(first: nn.Module, second: nn.Module) -> None:
    """Raises UserError, with the differences, for models between which there is no line: of other architectures, with tensors
    of other names, shapes or types, or with whole-number buffers of other values."""
    kinds = [architecture(model) for model in (first, second)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"the models are of two architectures, {kinds[0]} and {kinds[1]}: only a model and one fine-tuned from it can be mixed"
        )
    ours, theirs = first.state_dict(), second.state_dict()
    differing = [f"{name} is in one of them alone" for name in sorted(ours.keys() ^ theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        one, other = ours[name], theirs[name]
        if one.shape != other.shape:
            differing.append(f"{name} is {tuple(one.shape)} and {tuple(other.shape)}")
        elif one.dtype != other.dtype:
            differing.append(f"{name} is {one.dtype} and {other.dtype}")
        elif not (one.is_floating_point() or one.is_complex()) and not torch.equal(one, other.to(one.device)):
            differing.append(f"{name} holds other whole numbers")
    if differing:
        more = f" and {len(differing) - _NAMED} more differ" if len(differing) > _NAMED else ""
        raise UserError(
            f"the weights of the models cannot be mixed: {'; '.join(differing[:_NAMED])}{more}. "
            "Give a model and one fine-tuned from it, with the same classes and image size."
        )
