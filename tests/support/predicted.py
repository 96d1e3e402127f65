"""Rows of accuracy made by hand: which images were hit, and whatever else a test asks for."""

from collections.abc import Sequence

import numpy as np

from relevit.evaluation.accuracy.predictions import Predictions


def predicted(
    hits: Sequence[int] | np.ndarray,
    groups: Sequence[str] | None = None,
    objects: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    answers: Sequence[tuple[int, ...]] | None = None,
) -> Predictions:
    """Class 0 is right, class 1 is what is answered otherwise, with a confidence of one half; all are among the first five."""
    hit = np.asarray(hits, bool)
    columns = {
        "answers": answers or [(0,)] * len(hit),
        "top5": [[0, 1, 2, 3, 4] if right else [1, 0, 2, 3, 4] for right in hit],
        "confidence": np.full(len(hit), 0.5, np.float32),
        "hit1": hit,
        "hit5": np.ones(len(hit), bool),
    }
    names = keys or [f"{number}.png" for number in range(len(hit))]
    return Predictions.of(names, groups or ["a"] * len(hit), columns, objects=objects)
