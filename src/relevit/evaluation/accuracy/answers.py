"""A model's first five classes and its confidence, from its logits; and whether they are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor


def first_five(
    logits: Float[Tensor, "batch classes"], candidates: Int[Tensor, " candidates"] | None = None
) -> tuple[Int32[Tensor, "batch 5"], Float[Tensor, " batch"]]:
    """The five classes of the highest logits, best first, and the softmax probability of the first of them.

    candidates: the classes that compete, sorted; None for all. The probability is over them alone. Of equal logits the
    lower class comes first, so a model that answers with a constant gains nothing. Where fewer than five compete, the
    rest is -1; a class of the logit -inf is never an answer. A row with NaN or +inf among the competing logits, or
    with -inf alone, has -1 everywhere and the confidence NaN.
    """
    left = logits.float() if candidates is None else logits.float()[:, candidates]
    finite = left.amax(dim=1).isfinite()  # (batch,); NaN and +inf are the maximum wherever they are
    left = torch.where(finite[:, None], left, 0.0)
    confidence = left.softmax(dim=1).amax(dim=1)  # (batch,)
    chosen = []
    for _ in range(min(5, left.shape[1])):
        best = left.argmax(dim=1)  # (batch,); the first of equal ones
        competes = left.gather(1, best[:, None])[:, 0] > -torch.inf
        left = left.scatter(1, best[:, None], -torch.inf)
        best = best if candidates is None else candidates[best]
        chosen.append(torch.where(competes, best, -1))
    top = torch.stack(chosen, dim=1)  # (batch, up to 5)
    top = torch.nn.functional.pad(top, (0, 5 - top.shape[1]), value=-1)
    top = torch.where(finite[:, None], top, -1)
    return top.to(torch.int32), torch.where(finite, confidence, torch.nan)


def hits(top5: Int32[Tensor, "images 5"], answers: Sequence[tuple[int, ...]]) -> Bool[Tensor, "2 images"]:
    """Whether any of an image's answers is the first, is among the first five."""
    width = max((len(each) for each in answers), default=1)
    table = np.full((len(answers), max(width, 1)), -2, np.int64)  # -2: no class, and not the -1 of `first_five`
    for row, each in enumerate(answers):
        table[row, : len(each)] = each
    right = (top5[:, :, None] == torch.from_numpy(table).to(top5.device)[:, None, :]).any(dim=2)  # (images, 5)
    return torch.stack([right[:, 0], right.any(dim=1)])
