"""The paper's split: which samples, in which order, and what other choices give."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.data import ImageNetInfo

from mask_trees import class_ids, imagenet_s, picture, rectangle, save, wnids
from relevit.data.annotations import MERGED
from relevit.data.annotations.convert import convert_masks
from relevit.data.folder import class_folder_samples
from relevit.data.manifest import Row
from relevit.data.splits import paper_split
from relevit.errors import FaultsError, UserError

LABELS = {wnid: index for index, wnid in enumerate(ImageNetInfo().label_names())}
FOLDERS = wnids(23)
KEPT = [name for name in FOLDERS if name not in MERGED]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imagenet_s(tmp_path_factory.mktemp("tree"), FOLDERS, 5)


def split(root: Path, **changed: Any) -> list[Row]:
    usual = {"class_list": FOLDERS, "classes": 11, "min_pixels": 0}
    return paper_split(root, **{**usual, **changed}).rows


def row(name: str, number: int, part: str) -> Row:
    return Row(f"{name}/{name}_{number}.JPEG", name, LABELS[name], part)


def test_first_classes_for_training_the_others_for_validation(root: Path) -> None:
    # names sort as text: _10 before _8
    expected = [row(name, number, "training") for name in KEPT[:11] for number in (10, 11, 12)]
    expected += [row(name, 10, "validation") for name in KEPT[11:]]
    assert len(KEPT) == 18 and split(root) == expected
    assert split(root, workers=3) == expected


def test_any_number_of_either(root: Path) -> None:
    rows = split(root, classes=5, per_class=2, validation_classes=7, validation_per_class=4)
    assert [one.class_name for one in rows if one.split == "training"] == [name for name in KEPT[:5] for _ in range(2)]
    assert [one.class_name for one in rows if one.split == "validation"] == [
        name for name in KEPT[11:] for _ in range(4)
    ]
    assert {one.split for one in split(root, classes=18, validation_classes=0)} == {"training"}


def test_seeds_choose_others_and_the_same_again(root: Path) -> None:
    def classes(rows: list[Row], part: str) -> set[str]:
        return {one.class_name for one in rows if one.split == part}

    first, samples, others = split(root), split(root, seed=3), split(root, class_seed=3)
    assert samples == split(root, seed=3) and others == split(root, class_seed=3)
    assert classes(samples, "training") == classes(first, "training") and set(samples) != set(first)
    assert classes(others, "training") != classes(first, "training") and len(others) == len(first) == 33 + 7
    assert classes(others, "training") | classes(others, "validation") == set(KEPT)
    numbers = {one.name.partition("_")[2] for one in others}
    assert numbers == {"10.JPEG", "11.JPEG", "12.JPEG"}  # the samples are the first, still
    assert split(root, seed=3, class_seed=3) not in (samples, others)
    assert len({tuple(split(root, seed=seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("seed", [None, 5])
def test_the_same_as_a_split_of_the_converted_folder(seed: int | None, root: Path, tmp_path: Path) -> None:
    convert_masks("imagenet-s", root, tmp_path / "out", class_list=FOLDERS)
    samples, _ = class_folder_samples(tmp_path / "out/images", tmp_path / "out/masks", check=False)

    def ranked(names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda name: name if seed is None else sha256(f"{seed}/{name}".encode()).digest())

    label = dict(zip(samples.names, samples.labels, strict=True))
    expected = []
    for place, group in enumerate(ranked(set(samples.groups))):
        members = ranked(name for name in samples.names if name.startswith(f"{group}/"))
        part, count = ("training", 3) if place < 11 else ("validation", 1)
        expected += [Row(name, group, label[name], part) for name in members[:count]]
    assert split(root, seed=seed, class_seed=seed) == expected
    converted = {"class_list": None, "images": tmp_path / "out/images", "format": "png"}
    assert split(tmp_path / "out/masks", seed=seed, class_seed=seed, **converted) == expected


def test_small_masks_give_way_to_the_next_of_the_class(tmp_path: Path) -> None:
    areas = {"a": 520, "b": 519, "c": 800, "d": 3, "e": 700, "f": 999}
    for folder in ("3", "7"):
        for name, area in areas.items():
            save(tmp_path / f"images/{folder}/{name}.jpg", picture(0, 97, 89))
            mask = rectangle(0, 97, 89, area if folder == "3" else 519)
            save(tmp_path / f"masks/{folder}/{name}.png", mask * np.uint8(255))
    save(tmp_path / "masks/7/f.png", rectangle(0, 97, 89, 520) * np.uint8(255))
    found = paper_split(tmp_path / "masks", tmp_path / "images", format="png", classes=1, min_pixels=520)
    assert [(one.name, one.label, one.split) for one in found.rows] == [
        ("3/a.jpg", 3, "training"),
        ("3/c.jpg", 3, "training"),
        ("3/e.jpg", 3, "training"),
        ("7/f.jpg", 7, "validation"),
    ]
    assert found.left_out == {"of fewer than 520 pixels": 2 + 5} and found.short == {}
    more = paper_split(tmp_path / "masks", tmp_path / "images", format="png", classes=1, per_class=5, min_pixels=520)
    assert more.short == {"3": 4}


def test_the_rule_of_520_pixels_is_for_automatic_masks_only(tmp_path: Path) -> None:
    """Of annotated masks the paper takes the first of any size."""
    for number, wnid in enumerate(("n01440764", "n01443537")):
        (tmp_path / f"pt/{wnid}").mkdir(parents=True)
        for name, area in (("a", 519), ("b", 520)):
            mask = rectangle(0, 97, 89, area)
            save(tmp_path / f"tree/images/{wnid}/{name}.JPEG", picture(0, 97, 89))
            save(tmp_path / f"png/{wnid}/{name}.png", mask)
            save(tmp_path / f"tree/masks-segmentation/{wnid}/{name}.png", class_ids(mask, number + 1))
            torch.save(mask, tmp_path / f"pt/{wnid}/{name}_tokencut_bfs.pt")
    sources = {"png": tmp_path / "png", "imagenet-s": tmp_path / "tree/masks-segmentation", "tokencut": tmp_path / "pt"}
    for format, source in sources.items():
        found = paper_split(source, tmp_path / "tree/images", format=format, classes=1, per_class=1)
        first = "b" if format == "tokencut" else "a"
        assert [Path(one.name).stem for one in found.rows] == [first, first], format
    with pytest.raises(UserError, match="--min-pixels must be at least 0"):
        paper_split(sources["png"], tmp_path / "tree/images", format="png", classes=1, min_pixels=-1)


def test_only_what_is_needed_is_read_and_faults_stop(tmp_path: Path) -> None:
    folders = wnids(9)
    root = imagenet_s(tmp_path, folders, 3)
    first, second, *_ = (name for name in folders if name not in MERGED)
    masks = root / "train-semi-segmentation"
    (masks / f"{first}/{first}_9.png").write_text("no picture")  # the last by name: 10, 8, 9
    usual: dict[str, Any] = {"class_list": folders, "classes": 2, "min_pixels": 0}
    assert len(paper_split(root, per_class=2, **usual).rows) == 6
    two = class_ids(rectangle(0), folders.index(second) + 1)
    two[0, 0] = (9, 0, 0)
    save(masks / f"{second}/{second}_10.png", two)
    with pytest.raises(FaultsError) as caught:
        paper_split(root, per_class=3, **usual)
    assert [fault.kind for fault in caught.value.faults] == ["unreadable mask", "several objects in one mask"]
    skipped = paper_split(root, per_class=3, skip_bad=True, **usual)
    assert skipped.short == {first: 2, second: 2} and len(skipped.faults) == 2 and len(skipped.rows) == 6


def test_merged_classes_are_left_out_of_any_format(root: Path, tmp_path: Path) -> None:
    for name in FOLDERS:
        save(tmp_path / f"images/{name}/a.jpg", picture(0))
        save(tmp_path / f"masks/{name}/a.png", rectangle(0))
    found = paper_split(tmp_path / "masks", tmp_path / "images", format="png", classes=11, per_class=1, min_pixels=0)
    assert [one.class_name for one in found.rows] == KEPT and "5 merged classes" in found.notes[0]
    names = FOLDERS[:9]
    few = paper_split(
        tmp_path / "masks", tmp_path / "images", format="png", classes=2, per_class=1, min_pixels=0, class_list=names
    )
    assert [one.class_name for one in few.rows] == [name for name in names if name not in MERGED]


def test_too_few_classes_and_wrong_numbers_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="18 classes with masks, too few for 500 of training and at least one"):
        split(root, classes=500)
    with pytest.raises(UserError, match="too few for 18"):
        split(root, classes=18)
    with pytest.raises(UserError, match="11 of training and 8 of validation"):
        split(root, validation_classes=8)
    for name in ("classes", "per_class", "validation_per_class"):
        with pytest.raises(UserError, match="must be at least 1"):
            split(root, **{name: 0})
    with pytest.raises(UserError, match=r"No sample .* is usable for training"):
        split(root, min_pixels=520)


@pytest.mark.slow
def test_the_whole_of_imagenet_s(tmp_path: Path) -> None:
    """919 folders, of which five are merged classes: 500 x 3 and 414 x 1, and the ids follow from the folders."""
    folders = wnids(919)
    root = imagenet_s(tmp_path, folders, 4)
    found = paper_split(root, min_pixels=0)
    kept = [name for name in folders if name not in MERGED]
    assert len(kept) == 914 and len(found.rows) == 1914 and found.short == {} and found.faults == []
    assert found.rows[:1500] == [row(name, n, "training") for name in kept[:500] for n in (10, 11, 8)]
    assert found.rows[1500:] == [row(name, 10, "validation") for name in kept[500:]]
