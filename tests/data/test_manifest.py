"""Whole classes or samples held out, and manifests, written down and read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from relevit.data.manifest import Row, apply_manifest, hold_out, read_manifest, write_manifest
from relevit.errors import UserError


def named() -> list[Row]:
    """5 classes of 2, 3, 5, 7 and 11 samples, in an order that is not sorted."""
    sizes = {"d": 7, "a": 2, "e": 11, "b": 3, "c": 5}
    return [
        Row(f"{name}/{number:02}", name, "abcde".index(name))
        for name, size in sizes.items()
        for number in reversed(range(size))
    ]


def names(part: Sequence[int] | None) -> list[str]:
    return [named()[index].name for index in part or ()]


def test_the_last_classes_are_held_out() -> None:
    training, validation = hold_out(named(), 2)
    assert names(training) == [f"{name}/{n:02}" for name, size in (("a", 2), ("b", 3), ("c", 5)) for n in range(size)]
    assert names(validation) == [f"{name}/{n:02}" for name, size in (("d", 7), ("e", 11)) for n in range(size)]


@pytest.mark.parametrize(("share", "classes"), [(0.4, "de"), (0.01, "e"), (0.99, "bcde")])
def test_fractions_hold_out_at_least_one_and_never_all(share: float, classes: str) -> None:
    assert {name[0] for name in names(hold_out(named(), share)[1])} == set(classes)


def test_samples_of_every_class_held_out() -> None:
    training, validation = hold_out(named(), 1, "sample")
    assert names(validation) == ["a/01", "b/02", "c/04", "d/06", "e/10"]
    assert names(training)[:5] == ["a/00", "b/00", "b/01", "c/00", "c/01"]
    assert len(hold_out(named(), 0.5, "sample")[1]) == 1 + 2 + 2 + 4 + 6


def test_the_order_of_the_data_does_not_matter() -> None:
    data = sorted(named(), key=lambda row: row.name)
    for by in ("class", "sample"):
        parts = hold_out(data, 0.4, by)
        assert [[data[index].name for index in part] for part in parts] == [
            names(p) for p in hold_out(named(), 0.4, by)
        ]


def test_classes_called_by_numbers_are_sorted_by_them() -> None:
    rows = [Row(f"sample {number}", str(label), label) for number, label in enumerate((10, 2, 10, 2))]
    assert hold_out(rows, 1) == ([1, 3], [0, 2])  # class 2 before class 10


@pytest.mark.parametrize("validation", [0, 1.0, 0.0, -1, 1.5, True])
def test_wrong_amounts_are_refused(validation: float) -> None:
    with pytest.raises(UserError, match="validation must be"):
        hold_out(named(), validation)


def test_nothing_left_is_told() -> None:
    with pytest.raises(UserError, match="No samples are left for training: there are 28 in 5 classes"):
        hold_out(named(), 5)


def test_a_manifest_is_read_as_written_and_gives_the_same_split(tmp_path: Path) -> None:
    parts = {"training": [3, 1, 27], "validation": [9, 5]}
    rows = [named()[index]._replace(split=split) for split, indices in parts.items() for index in indices]
    odd = [*rows, Row('ä, "b"/x y.jpg', "ä, b", 7, "training")]
    write_manifest(tmp_path / "split.csv", odd)
    assert read_manifest(tmp_path / "split.csv") == odd
    assert (tmp_path / "split.csv").read_text(encoding="utf-8").splitlines()[0] == "name,class,label,split"
    assert apply_manifest(named(), rows) == ([3, 1, 27], [9, 5])
    with pytest.raises(UserError, match=r"1 samples.*x y\.jpg"):
        apply_manifest(named(), odd)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "name,class,label,split\nx,y,z,training\n", "\udcff"])
def test_other_files_are_no_manifest(text: str, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    if not text:
        path.unlink()
    with pytest.raises(UserError, match=r"split\.csv"):
        read_manifest(path)
