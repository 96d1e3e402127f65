"""What a loss may look at, and what it returns: between the loop and the methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from relevit.errors import UserError

Numbers = Mapping[str, float]
"""What a method runs with, by name: weights of terms, a temperature, a probability."""


class LossInputs(NamedTuple):
    """What a loss may use: logits (batch, classes); maps, masks and ignore (batch, height, width); labels (batch,).

    maps: relevance in [0, 1]; None where the method does not need maps. ignore: None where no sample has an ignore region.
    raw: the same maps before they are scaled. input_gradient: (batch, channels, height, width), of the method's score by
    the images. other_logits: of the same objects before other backgrounds. reference_logits: what the model as it was
    before training says of the images; without a graph. The last three are None where the method does not ask for them.
    """

    logits: Tensor
    maps: Tensor | None
    masks: Tensor
    ignore: Tensor | None
    labels: Tensor
    raw: Tensor | None = None
    input_gradient: Tensor | None = None
    other_logits: Tensor | None = None
    reference_logits: Tensor | None = None


class Term(NamedTuple):
    """One term of a loss: a scalar and its weight in the total."""

    weight: float
    value: Tensor


def total(terms: Mapping[str, Term]) -> Tensor:
    """The weighted sum of the terms. A term of weight zero is left out, so that it may be anything, infinity too."""
    weighted = [term.weight * term.value for term in terms.values() if term.weight != 0]
    if not weighted:
        raise UserError("all weights of the loss are zero: nothing would be trained")
    return torch.stack(weighted).sum()
