"""Rows as files: they come back as they were, in the order of the set."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from relevit.evaluation.accuracy.predictions import COLUMNS, Predictions
from relevit.evaluation.rows import Fault, read_part, write_part


def some_rows(count: int = 7, objects: bool = True) -> Predictions:
    rng = np.random.default_rng(count)
    confidence = rng.random(count).astype(np.float32)
    confidence[:1] = np.nan
    columns = {
        "answers": [tuple(range(i % 4)) for i in range(count)],
        "top5": rng.integers(-1, 1000, (count, 5)).astype(np.int32),
        "confidence": confidence,
        "hit1": rng.random(count) < 0.5,
        "hit5": rng.random(count) < 0.5,
    }
    return Predictions.of(
        [f'dir/{i}, "ü".png' for i in range(count)],
        [f"n{i % 3}" for i in range(count)],
        columns,
        objects=[f"o{i % 2}" for i in range(count)] if objects else None,
        indices=[2 * i + 1 for i in range(count)],
        unreadable=[Fault(4, "x.png", "n1", "it is broken, says PIL"), Fault(0, "w.png", "n0", "gone")],
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("objects", [True, False])
@pytest.mark.parametrize("count", [7, 0])
def test_rows_come_back_as_they_were(tmp_path: Path, suffix: str, objects: bool, count: int) -> None:
    rows = some_rows(count, objects)
    write_part(tmp_path / f"part.{suffix}", rows.table)
    back = Predictions(read_part(tmp_path / f"part.{suffix}", COLUMNS))
    assert back.keys == rows.keys and back.answers == rows.answers and back.groups.tolist() == rows.groups.tolist()
    for name in ("top5", "confidence", "hit1", "hit5", "indices"):
        np.testing.assert_array_equal(getattr(back, name), getattr(rows, name))
        assert getattr(back, name).dtype == getattr(rows, name).dtype
    assert back.unreadable == sorted(rows.unreadable)
    if count and objects:
        assert back.objects is not None and rows.objects is not None and back.objects.tolist() == rows.objects.tolist()
    else:
        assert back.objects is None


def test_the_files_rows_are_in_the_benchmarks_order(tmp_path: Path) -> None:
    write_part(tmp_path / "part.parquet", some_rows().table)
    table = pq.read_table(tmp_path / "part.parquet").to_pydict()
    assert table["index"] == [0, 1, 3, 4, 5, 7, 9, 11, 13] and table["image"][3] == "x.png"
    assert table["fault"][3] == "it is broken, says PIL" and table["hit1"][3] is None and table["fault"][1] is None
