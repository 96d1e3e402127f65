"""What a model answered to each image of a set: the rows of accuracy, by name.

The measurement's own columns (for the others see rows.py):

    answers     the model's classes that count as a hit
    top5        the model's first five classes, -1 where there are fewer; of equal logits the lower class comes first
    confidence  softmax probability of the first, over the classes that compete
    hit1, hit5  whether an answer is the first, is among the first five
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int32, Integer, Shaped

from relevit.data.sets import Item
from relevit.evaluation.accuracy.recall import Accuracy
from relevit.evaluation.rows import NUMBERS, Fault, Part, array, counted, faults_of, read_rows, table_of

COLUMNS = pa.schema(
    [
        ("answers", NUMBERS),
        ("top5", NUMBERS),
        ("confidence", pa.float32()),
        ("hit1", pa.bool_()),
        ("hit5", pa.bool_()),
    ]
)


class Predictions:
    """What one model answered to the images of one set that could be read, in the set's order.

    Attributes:
        table: all rows, also of images that could not be read.
        rows: those of the images that could be read.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table, self.rows = table, counted(table)

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        groups: Sequence[str],
        columns: Mapping[str, Any],
        *,
        objects: Sequence[str] | None = None,
        indices: Sequence[int] | None = None,
        unreadable: Sequence[Fault] = (),
    ) -> Predictions:
        """Rows made by hand: names, class names and the columns of COLUMNS, each a value an image."""
        places = range(len(keys)) if indices is None else indices
        items = [
            Item(int(place), key, str(group), None if objects is None else str(objects[row]))
            for row, (place, key, group) in enumerate(zip(places, keys, groups, strict=True))
        ]
        faults = [(Item(fault.place, fault.name, fault.group), fault.reason) for fault in unreadable]
        return cls(table_of([Part(items, dict(columns), faults)], COLUMNS))

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def keys(self) -> list[str]:
        """The images' names, relative to the set's folder."""
        return self.rows["image"].to_pylist()

    @cached_property
    def groups(self) -> Shaped[np.ndarray, " images"]:
        """The class name of each image (of a folder benchmark, its folder)."""
        return array(self.rows, "class")

    @cached_property
    def answers(self) -> list[tuple[int, ...]]:
        """The model's classes that count as a hit, for each image."""
        return [tuple(right or ()) for right in self.rows["answers"].to_pylist()]

    @cached_property
    def top5(self) -> Int32[np.ndarray, "images 5"]:
        """The model's first five classes among those that compete, best first; -1 where there are fewer, and where the logits are
        not finite."""
        return array(self.rows, "top5").reshape(len(self), 5)

    @cached_property
    def confidence(self) -> Float32[np.ndarray, " images"]:
        """Softmax probability of the first of them, over the classes that compete; NaN where logits are not finite."""
        return array(self.rows, "confidence")

    @cached_property
    def hit1(self) -> Bool[np.ndarray, " images"]:
        """Whether one of the answers is the first."""
        return array(self.rows, "hit1")

    @cached_property
    def hit5(self) -> Bool[np.ndarray, " images"]:
        """Whether one of the answers is among the first five."""
        return array(self.rows, "hit5")

    @cached_property
    def objects(self) -> Shaped[np.ndarray, " images"] | None:
        """What each image shows, where several show one object."""
        known = len(self.rows["object"]) > self.rows["object"].null_count
        return array(self.rows, "object") if known else None

    @cached_property
    def indices(self) -> Integer[np.ndarray, " images"]:
        """The images' places in the set."""
        return array(self.rows, "index")

    @cached_property
    def unreadable(self) -> list[Fault]:
        """The images that could not be read, and why."""
        return faults_of(self.table)

    def accuracy(self) -> Accuracy:
        """R@1 and R@5 with their intervals."""
        return Accuracy(self.hit1, self.hit5, self.groups, self.objects)

    def only(self, chosen: Bool[np.ndarray, " images"]) -> Predictions:
        """The same for some of the images that could be read."""
        return Predictions(self.rows.filter(pa.array(np.asarray(chosen, dtype=bool))))


def read_predictions(folder: str | Path) -> Predictions:
    """The rows of one model on one benchmark: OUT/predictions/<benchmark>/<model>, in the benchmark's order.

    Raises UserError where there are none, parts are missing, or a file cannot be read.
    """
    return Predictions(read_rows(folder, COLUMNS))
