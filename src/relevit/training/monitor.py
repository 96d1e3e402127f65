"""What is watched during training: losses and gradients that are not finite, and maps that collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relevit.errors import UserError

_NAMES_SHOWN = 10
COLLAPSED_SHARE = 0.5  # of an epoch's samples: more raise the alarm


class NonFiniteLossError(UserError):
    """A loss term or the gradient became infinite or not a number; the message names step, term and samples."""


def check_finite(
    step: int,
    values: Mapping[str, float],
    names: Sequence[str],
    logits: Float[Tensor, "batch classes"] | None = None,
    maps: Float[Tensor, "batch height width"] | None = None,
    role: str = "training",
) -> None:
    """Raise NonFiniteLossError unless all `values` (name -> number) of a step are finite.

    The samples named are those whose logits or map are not finite, or all of the batch where that tells nothing.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if not bad:
        return
    faulty = torch.zeros(len(names), dtype=torch.bool)
    for tensor in (logits, maps):
        if tensor is not None:
            faulty |= ~tensor.detach().flatten(1).isfinite().all(dim=1).cpu()
    chosen = [name for name, is_bad in zip(names, faulty.tolist(), strict=True) if is_bad] or list(names)
    more = f" and {len(chosen) - _NAMES_SHOWN} more" if len(chosen) > _NAMES_SHOWN else ""
    raise NonFiniteLossError(
        f"step {step}: {', '.join(f'{name} is {values[name]}' for name in bad)}, with the {role} samples "
        f"{', '.join(chosen[:_NAMES_SHOWN])}{more}. Training stopped, the last good checkpoint stays as it is. "
        "Look at these samples, or start a new run with a lower learning rate or without mixed precision"
    )


def collapsed(maps: Float[Tensor, "batch height width"], patches: int) -> Bool[Tensor, " batch"]:
    """Which maps have collapsed: zero everywhere or at all but about one patch, or uniformly high.

    As the discussion of the paper's Table 4 has it: the background term alone drives the whole map to 0, the foreground
    term alone to 1. Maps are scaled to [0, 1] each and a flat one is all zeros, so that the mean tells: at most
    1.5 / patches, or at least 0.97, is a collapse.
    """
    mean = maps.detach().mean(dim=(1, 2))
    return (mean <= 1.5 / patches) | (mean >= 0.97)


def collapse_warning(epoch: int, share: float) -> str | None:
    """The alarm for an epoch in which `share` of the samples had collapsed maps; None if all is well."""
    if share <= COLLAPSED_SHARE:
        return None
    return (
        f"COLLAPSE: in epoch {epoch} the relevance map was flat or zero nearly everywhere for {share:.0%} of the "
        "samples. The loss can no longer steer the model: lower the learning rate, raise lambda_classification, or "
        "keep both lambda_bg and lambda_fg above zero"
    )
