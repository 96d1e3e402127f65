"""The paper's tables as data: published/table1.csv to table4.csv, in percent; cells that could not be read are empty."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "published"
SEGMENTATION = ("pixel_accuracy", "miou", "map")  # Table 3's columns: figures of one benchmark


@dataclass(frozen=True)
class Published:
    """A figure of the paper. masks: "annotated", "tokencut" or "none"; figure: r1, r5, or one of SEGMENTATION; value: in
    percent, None where it could not be read."""

    model: str
    method: str
    masks: str
    benchmark: str
    figure: str
    value: float | None


@cache
def published(table: int) -> tuple[Published, ...]:
    """Every cell of Table 1, 2, 3 or 4, row by row. In Table 4 `method` is the variant."""
    cells = []
    with open(FOLDER / f"table{table}.csv", newline="") as file:
        for row in csv.DictReader(file):
            model, method = row.pop("model"), row.pop("method", None) or row.pop("variant")
            masks = row.pop("masks", "none" if method == "original" else "annotated")
            for column, text in row.items():
                benchmark, _, figure = column.partition("_") if table in (1, 2) else (column, "", "r1")
                if table == 3:
                    benchmark, figure = "segmentation", column
                value = float(text) if text else None
                cells.append(Published(model, method, masks, benchmark, figure, value))
    return tuple(cells)


def figure_of(
    table: int | None, model: str, method: str, masks: str, benchmark: str, figure: str = "r1"
) -> float | None:
    """A figure of a table, None where there is none; of Table 3 of whatever benchmark."""
    wanted = (model, method, masks, "segmentation" if table == 3 else benchmark, figure)
    cells = published(table) if table is not None else ()
    return next((c.value for c in cells if (c.model, c.method, c.masks, c.benchmark, c.figure) == wanted), None)


def average_change(
    table: int, method: str, masks: str, benchmark: str, figure: str = "r1", models: Collection[str] | None = None
) -> float | None:
    """The bottom rows of Tables 1 and 2: the change that a method makes to a figure, averaged over the models of which
    both figures are known, in points; None where there is none. models: of these alone, by default of all."""
    known = {
        (c.model, c.method, c.masks): c.value
        for c in published(table)
        if (c.benchmark, c.figure) == (benchmark, figure)
    }
    changes = [
        value - before
        for (model, own, with_masks), value in known.items()
        if (own, with_masks) == (method, masks)
        and (models is None or model in models)
        and value is not None
        and (before := known.get((model, "original", "none"))) is not None
    ]
    return sum(changes) / len(changes) if changes else None
