"""Rows of an evaluation in the output folder of experiments, from hits that a test makes up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from relevit.evaluation import Predictions
from relevit.evaluation.rows import part_name, write_part
from relevit.experiments.hits import rows_folder


def write_hits(
    out: Path,
    key: str,
    name: str,
    hit1: Sequence[bool] | np.ndarray,
    hit5: Sequence[bool] | np.ndarray,
    classes: Sequence[str],
    answers: Sequence[tuple[int, ...]] | None = None,
    objects: Sequence[str] | None = None,
    places: Sequence[int] | None = None,
) -> None:
    """The rows OUT/evaluations/KEY of a set; nothing but the hits, the classes and the objects means anything."""
    count = len(hit1)
    columns = {
        "answers": list(answers or [(0,)] * count),
        "top5": [[0] * 5] * count,
        "confidence": [1.0] * count,
        "hit1": [bool(hit) for hit in hit1],
        "hit5": [bool(hit) for hit in hit5],
    }
    keys = [f"{number:05d}" for number in range(count)]
    shown = None if objects is None else [str(each) for each in objects]
    rows = Predictions.of(keys, [str(name) for name in classes], columns, objects=shown, indices=places)
    write_part(rows_folder(out, key, name) / part_name(0, 1, "parquet"), rows.table)
