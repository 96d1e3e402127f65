"""Accuracy from the rows of evaluations in the output folder, OUT/evaluations/KEY."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Bool, Integer

from relevit.errors import UserError
from relevit.evaluation import Predictions, read_predictions
from relevit.evaluation.folder import rows_place
from relevit.statistics import interval, paired
from relevit.statistics.estimate import Estimate


def rows_folder(out: Path, key: str, name: str) -> Path:
    """The folder of the rows of evaluation `key` on a set."""
    return rows_place(out / "evaluations" / key, name, "model")


def read_hits(out: Path, key: str, name: str) -> Predictions:
    """The rows of evaluation `key` on a set. Raises UserError where they are gone."""
    folder = rows_folder(out, key, name)
    if not folder.is_dir():
        raise UserError(f"{folder} is gone: remove {out / 'jobs' / key}.json to have it made again")
    return read_predictions(folder)


def right(rows: Predictions, figure: str) -> Bool[np.ndarray, " images"]:
    """Whether the first guess ("r1"), or one of the first five ("r5"), is right."""
    return {"r1": rows.hit1, "r5": rows.hit5}[figure]


def first_answers(rows: Predictions) -> Integer[np.ndarray, " images"]:
    """The first class that counts as right, -1 for none."""
    first = pc.list_flatten(pc.list_slice(rows.rows["answers"], 0, 1, return_fixed_size_list=True))
    return pc.fill_null(first, -1).to_numpy()


def accuracy(several: Sequence[Predictions], figure: str) -> float:
    """Percent; of several sets, the mean of their accuracies."""
    return float(np.mean([100 * right(rows, figure).mean() for rows in several]))


def estimate(several: Sequence[Predictions], figure: str) -> Estimate:
    """The same with an interval over the images of all sets, by object where objects are known."""
    hits = np.concatenate([right(rows, figure) for rows in several])
    shown = [rows.objects for rows in several if rows.objects is not None]
    found = interval.share(hits, np.concatenate(shown) if len(shown) == len(several) else None).percent
    return Estimate(accuracy(several, figure), found.low, found.high, found.count, found.over)


def change(before: Predictions, after: Predictions, figure: str) -> Estimate | None:
    """The change in points over the images that were read both times; None without any."""
    if not np.array_equal(before.indices, after.indices):
        before, after = (
            before.only(np.isin(before.indices, after.indices)),
            after.only(np.isin(after.indices, before.indices)),
        )
    if not len(before):
        return None
    return paired.difference_of_images(right(before, figure), right(after, figure), after.objects).percent
