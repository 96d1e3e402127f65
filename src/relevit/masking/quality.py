"""How far an automatic mask can be trusted: a confidence from figures that mean something."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from relevit.data.inspection import border_share
from relevit.errors import UserError

# A share of the picture below _SMALL or above _LARGE is unlikely to be an object; the score falls to 0 at 0 and at 1.
_SMALL, _LARGE = 0.02, 0.8


class Quality(NamedTuple):
    """confidence: in [0, 1], 0 where there is no mask. The rest are the figures that it is made of, as measured:

    eigengap: (third - second eigenvalue) / third, in [0, 1]; 0 where the cut is not unique.
    agreement: IoU of the coarse and the refined mask, in [0, 1].
    share: the refined mask's share of the picture, in [0, 1].
    border: the share of the picture's outermost pixels that the refined mask covers, in [0, 1].
    """

    confidence: float
    eigengap: float
    agreement: float
    share: float
    border: float


def mask_quality(
    eigenvalues: tuple[float, float],
    coarse: Bool[np.ndarray, "height width"],
    refined: Bool[np.ndarray, "height width"],
) -> Quality:
    """The confidence in an automatic mask; `eigenvalues` are the second and third smallest of the graph.

    It is the geometric mean of four scores, each in [0, 1], so that one bad figure cannot be made up for by the others
    and a score of 0 gives a confidence of 0:

    - eigengap: (third - second) / third. The cut costs that much less than the next best one.
    - agreement: IoU(coarse, refined), and 0 below 0.5, where the published rule drops the mask: patches and edges then
      tell of different things.
    - share of the picture s: min(1, s / 0.02, (1 - s) / 0.2). Neither specks nor all of the picture are objects.
    - border b: 1 - b. A piece of background lies along most of the picture's border; an object seldom does.

    The confidence rises with the eigengap and the agreement, and falls with the contact with the border. It is a
    heuristic, meant for ranking masks and for a threshold chosen by looking at them. It is not a probability: it was
    not fitted to anything, and masks with a confidence of 0.8 are not right four times in five.

    Without refinement, give the coarse mask twice: the agreement is then 1 and tells nothing. Empty masks have a
    confidence of 0, as has an eigenvalue that is not finite. Raises UserError if the masks' sizes differ.
    """
    if coarse.shape != refined.shape:
        raise UserError(
            f"The coarse mask is {coarse.shape} but the refined one is {refined.shape}: give both one size."
        )
    second, third = eigenvalues
    usable = np.isfinite(second) and np.isfinite(third) and third > 0
    eigengap = min(max(float((third - second) / third), 0.0), 1.0) if usable else 0.0
    union = int((coarse | refined).sum())
    agreement = int((coarse & refined).sum()) / union if union else 0.0
    share = float(refined.mean()) if refined.size else 0.0
    border = border_share(refined)
    scores = [
        eigengap,
        agreement if agreement >= 0.5 else 0.0,
        min(1.0, share / _SMALL, (1 - share) / (1 - _LARGE)),
        1 - border,
    ]
    confidence = float(np.prod(scores)) ** (1 / len(scores))
    return Quality(confidence, eigengap, agreement, share, border)
