"""Masks of single objects: Pascal VOC and COCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mask_trees import HEIGHT, WIDTH, kinds, names, palette, picture, rectangle, save
from relevit.data.annotations import FaultyMaskError, list_masks
from relevit.data.annotations.coco import decode
from relevit.errors import UserError


def test_voc_by_class(tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[2:5, 3:10], labels[7:9, :5], labels[5] = 12, 20, 255
    save(tmp_path / "SegmentationClass/2007_000032.png", palette(labels))
    save(tmp_path / "JPEGImages/2007_000032.jpg", picture(0))
    save(tmp_path / "SegmentationClass/2007_000033.png", palette(labels))
    save(tmp_path / "SegmentationClass/coloured.png", picture(1))
    save(tmp_path / "JPEGImages/coloured.jpg", picture(1))
    save(tmp_path / "SegmentationClass/blank.png", palette(labels * 0))
    save(tmp_path / "JPEGImages/blank.jpg", picture(1))
    save(tmp_path / "SegmentationClass/far.png", palette(labels // 20 * 21))
    save(tmp_path / "JPEGImages/far.jpg", picture(1))
    listing = list_masks("voc", tmp_path)
    assert names(listing) == ["dog/2007_000032.jpg", "tvmonitor/2007_000032.jpg"]
    dog, screen = (entry.read() for entry in listing.entries)
    assert np.array_equal(dog.mask, labels == 12) and np.array_equal(screen.mask, labels == 20)
    assert np.array_equal(dog.ignore, labels == 255)
    assert kinds(listing) == {
        "2007_000033.png": "missing image",
        "coloured.png": "unreadable mask",
        "far.png": "wrong class id",
    }
    assert listing.notes == ["1 pictures show none of the classes"]
    own = list_masks("voc", tmp_path / "SegmentationClass", tmp_path / "JPEGImages", [f"k{n}" for n in range(1, 22)])
    assert names(own) == ["k12/2007_000032.jpg", "k20/2007_000032.jpg", "k21/far.jpg"]


def coco(path: Path, annotations: list[dict[str, Any]], **other: Any) -> Path:
    images = [
        {"id": 3, "file_name": "ü 1.jpg", "height": HEIGHT, "width": WIDTH},
        {"id": 5, "file_name": "gone.jpg", "height": HEIGHT, "width": WIDTH},
    ]
    categories = [{"id": 1, "name": "dog"}, {"id": 62, "name": "cat/dog"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations, **other}))
    return path


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def test_coco_by_picture_and_category(tmp_path: Path) -> None:
    save(tmp_path / "images/ü 1.jpg", picture(0))
    crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
    crowd[4:9, 20:] = 1
    flat = np.concatenate([[0], crowd.T.reshape(-1), [2]])  # column by column
    edges = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate([[0], edges[:-1], [crowd.size]]))
    file = coco(
        tmp_path / "instances.json",
        [
            {"id": 1, "image_id": 3, "category_id": 1, "iscrowd": 0, "segmentation": box(2, 3, 9, 8)},
            {"id": 2, "image_id": 3, "category_id": 1, "iscrowd": 0, "segmentation": box(18, 1, 24, 6)},
            {"id": 3, "image_id": 3, "category_id": 62, "iscrowd": 0, "segmentation": box(0, 20, 5, 23)},
            {
                "id": 4,
                "image_id": 3,
                "category_id": 1,
                "iscrowd": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs.tolist()},
            },
            {"id": 5, "image_id": 5, "category_id": 1, "iscrowd": 0, "segmentation": box(0, 0, 5, 5)},
            {"id": 6, "image_id": 4, "category_id": 1, "iscrowd": 0, "segmentation": box(0, 0, 5, 5)},
            {"id": 7, "image_id": 3, "category_id": 9, "iscrowd": 0, "segmentation": box(0, 0, 5, 5)},
        ],
    )
    listing = list_masks("coco", file, tmp_path / "images")
    assert names(listing) == ["cat-dog/ü 1.jpg", "dog/ü 1.jpg"]
    other, dog = (entry.read() for entry in listing.entries)
    union = np.zeros((HEIGHT, WIDTH), dtype=bool)
    union[3:8, 2:9] = union[1:6, 18:24] = True
    assert np.array_equal(dog.mask, union)
    assert np.array_equal(dog.ignore, (crowd > 0) & ~union) and dog.ignore.sum() < crowd.sum()
    assert other.mask.sum() == 15 and other.ignore is None
    assert sorted(fault.kind for fault in listing.faults) == ["bad annotation", "bad annotation", "missing image"]
    assert names(list_masks("coco", file, tmp_path / "images", ["dog"])) == ["dog/ü 1.jpg"]
    with pytest.raises(UserError, match="--images"):
        list_masks("coco", file)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, 1e9]],
        [["a"] * 6],
        [[1, 2, 3, 4, 5, 6, 7]],
        {"size": [7, 5], "counts": [35]},
        {"size": [5, 7], "counts": [34]},
        {"size": [5, 7], "counts": [40, -5]},
        {"size": [5, 7]},
        "x",
    ],
)
def test_bad_annotations(segmentation: Any) -> None:
    with pytest.raises(UserError):
        decode(segmentation, 5, 7)


def test_compressed_run_lengths() -> None:
    from pycocotools import mask as runs

    noise = np.random.default_rng(0).random((97, 89))
    for mask in (rectangle(0), noise > 0.5, noise > 0.999, noise > 0.001, noise < 0, noise > 0):
        packed = runs.encode(np.asfortranarray(mask.astype(np.uint8)))
        height, width = mask.shape
        found = decode({"size": [height, width], "counts": packed["counts"].decode()}, height, width)
        assert np.array_equal(found, mask)
    for text in ("ü", "0 ", "", packed["counts"].decode() + "1"):
        with pytest.raises(UserError):
            decode({"size": [97, 89], "counts": text}, 97, 89)


def test_other_json_is_no_coco(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for text in ("", "[]", "{}", '{"images": [{"id": 1}], "categories": [], "annotations": []}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(UserError, match=r"a\.json"):
            list_masks("coco", tmp_path / "a.json", tmp_path / "images")
    file = coco(tmp_path / "b.json", [{"id": 9, "image_id": 3, "category_id": 1, "segmentation": [[1, 2]]}])
    save(tmp_path / "images/ü 1.jpg", picture(0))
    with pytest.raises(FaultyMaskError, match="annotation 9 of image 3"):
        list_masks("coco", file, tmp_path / "images").entries[0].read()


def test_names_of_classes_are_one_folder_whatever_they_hold(tmp_path: Path) -> None:
    save(tmp_path / "VOC/SegmentationClass/a.png", palette(np.array([[1, 2], [3, 4]])))
    save(tmp_path / "VOC/JPEGImages/a.jpg", picture(0, 2, 2))
    listing = list_masks("voc", tmp_path / "VOC", None, ["../up", "cat/dog", "..", " cow "])
    assert names(listing) == ["-up/a.jpg", "3/a.jpg", "cat-dog/a.jpg", "cow/a.jpg"]
    assert [entry.class_name for entry in listing.entries] == ["-up", "3", "cat-dog", "cow"]
