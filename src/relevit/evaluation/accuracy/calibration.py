"""Expected calibration error: does a model that is 80 % sure hit four times out of five?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

BINS = 15


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error with the bins that it is made of; all in percent but the counts.

    Attributes:
        ece: mean over the images of |share of hits - mean confidence| of the image's bin.
        counts: images in each bin.
        hits, confidences: share of hits and mean confidence in each bin, 0 where it is empty.
    """

    ece: float
    counts: list[int]
    hits: list[float]
    confidences: list[float]

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield "ece", self.ece

    def to_dict(self) -> dict:
        """Ready for JSON; None in place of NaN."""
        return {
            "ece": round(self.ece, 4) if sum(self.counts) else None,
            "bins": {
                "images": self.counts,
                "r1": [round(each, 4) for each in self.hits],
                "confidence": [round(each, 4) for each in self.confidences],
            },
        }


def calibration(
    confidence: Float[np.ndarray, " images"], hit: Bool[np.ndarray, " images"], bins: int = BINS
) -> Calibration:
    """ECE of the confidence in the first answer (Guo et al., "On Calibration of Modern Neural Networks", 2017, Eq. 3).

    `bins` bins of equal width on [0, 1]; bin m (from 1) holds ((m - 1) / bins, m / bins], the first one 0 as well. ECE is
    the sum over bins of (images in it / images) |share of hits - mean confidence|. Images whose confidence is NaN, from
    logits that are not finite, are left out; of no images at all it is NaN.
    """
    known = np.isfinite(confidence)
    sure, right = confidence[known].astype(np.float64), hit[known]
    edges = np.linspace(0, 1, bins + 1)
    member = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
    counts = np.bincount(member, minlength=bins)
    scale = 100.0 / np.maximum(counts, 1)
    hits = np.bincount(member, right, bins) * scale
    confidences = np.bincount(member, sure, bins) * scale
    ece = float((counts * np.abs(hits - confidences)).sum() / counts.sum()) if len(sure) else float("nan")
    return Calibration(ece, counts.tolist(), hits.tolist(), confidences.tolist())
