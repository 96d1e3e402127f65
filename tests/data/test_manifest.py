"""Splits: sorted or seeded, whole classes or samples held out, written down and read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from relevit.data.manifest import Row, apply_manifest, read_manifest, split_samples, write_manifest
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


def test_sorted_classes_first_for_training_the_last_held_out() -> None:
    split = split_samples(named(), 2, per_class=3, validation_per_class=1)
    assert names(split.training) == ["a/00", "a/01", "b/00", "b/01", "b/02", "c/00", "c/01", "c/02"]
    assert names(split.validation) == ["d/00", "e/00"]
    assert [(row.name, row.label, row.split) for row in split.manifest[-3:]] == [
        ("c/02", 2, "training"),
        ("d/00", 3, "validation"),
        ("e/00", 4, "validation"),
    ]


def test_fractions_hold_out_at_least_one_and_never_all() -> None:
    assert {name[0] for name in names(split_samples(named(), 0.4).validation)} == {"d", "e"}
    assert {name[0] for name in names(split_samples(named(), 0.01).validation)} == {"e"}
    assert {name[0] for name in names(split_samples(named(), 0.99).training)} == {"a"}


def test_samples_of_every_class_held_out() -> None:
    split = split_samples(named(), 1, by="sample", per_class=2)
    assert names(split.validation) == ["a/01", "b/02", "c/04", "d/06", "e/10"]
    assert names(split.training)[:5] == ["a/00", "b/00", "b/01", "c/00", "c/01"]
    half = split_samples(named(), 0.5, by="sample")
    assert len(half.validation or ()) == 1 + 2 + 2 + 4 + 6


def test_without_validation_everything_is_for_training() -> None:
    split = split_samples(named())
    assert split.validation is None and len(split.training) == 28
    assert names(split.training) == sorted(row.name for row in named())


def test_a_seed_changes_the_choice_and_repeats_it() -> None:
    first = split_samples(named(), 2, seed=1, per_class=1).manifest
    assert first == split_samples(named(), 2, seed=1, per_class=1).manifest
    others = [split_samples(named(), 2, seed=seed, per_class=1).manifest for seed in range(2, 9)]
    assert all(other != first for other in others)
    assert len({tuple(sorted({row.class_name for row in other if row.split == "training"})) for other in others}) > 2


def test_the_order_of_the_data_does_not_matter() -> None:
    data = named()
    expected = {seed: split_samples(data, 0.4, seed=seed, per_class=2).manifest for seed in (None, 5)}
    data.sort(key=lambda row: row.name)
    for seed, manifest in expected.items():
        assert split_samples(data, 0.4, seed=seed, per_class=2).manifest == manifest


def test_a_seeded_choice_is_the_same_for_ever() -> None:
    chosen = split_samples(named(), 1, seed=0, per_class=1).training
    assert names(chosen) == ["c/01", "b/00", "e/06", "d/02"]


def test_classes_called_by_numbers_are_sorted_by_them() -> None:
    split = split_samples(
        [Row(f"sample {number}", str(label), label) for number, label in enumerate((10, 2, 10, 2))], 1
    )
    assert split.training == [1, 3] and split.validation == [0, 2]  # class 2 before class 10
    assert [row.label for row in split.manifest if row.split == "validation"] == [10, 10]


@pytest.mark.parametrize("validation", [0, 1.0, 0.0, -1, 1.5, True])
def test_wrong_amounts_are_refused(validation: float) -> None:
    with pytest.raises(UserError, match="validation must be"):
        split_samples(named(), validation)


def test_nothing_left_is_told() -> None:
    with pytest.raises(UserError, match="No samples are left for training: there are 28 in 5 classes"):
        split_samples(named(), 5)
    with pytest.raises(UserError, match="per_class"):
        split_samples(named(), per_class=0)


def test_a_manifest_is_read_as_written_and_gives_the_same_split(tmp_path: Path) -> None:
    split = split_samples(named(), 2, seed=3, per_class=2)
    odd = [*split.manifest, Row('ä, "b"/x y.jpg', "ä, b", 7, "training")]
    write_manifest(tmp_path / "split.csv", odd)
    assert read_manifest(tmp_path / "split.csv") == odd
    assert (tmp_path / "split.csv").read_text(encoding="utf-8").splitlines()[0] == "name,class,label,split"
    again = apply_manifest(named(), split.manifest)
    assert names(again.training) == names(split.training) and names(again.validation) == names(split.validation)
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
