"""A set of images in one form: subsets, limits, labels by model, and any data set taken as one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from relevit.data.benchmarks import class_folders
from relevit.data.folder import class_folder_samples
from relevit.data.open import one_of
from relevit.data.sample import Sample
from relevit.data.sets import ImageSet, StreamSet, of_dataset
from relevit.errors import UserError


class Named(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        self.num_classes, self.pretrained_cfg = len(names), {"label_names": list(names)}


def picture(value: int) -> Image.Image:
    return Image.new("RGB", (3, 2), (value,) * 3)


def read(number: int) -> Sample:
    return Sample(picture(10 * number), None, number % 2, None, f"number {number}")


def right(model: object, class_map: object = None) -> list[tuple[int, ...]]:
    return [(kind, 7) for kind in range(5)]


def numbers() -> ImageSet:
    names = [f"number {number}" for number in range(5)]
    groups = ["even", "odd", "even", "odd", "even"]
    return ImageSet("numbers", read, names, groups, [0, 1, 0, 1, 0], right=right, kinds=range(5))


def test_a_subset_keeps_what_the_set_knows_of_each_image() -> None:
    part = numbers().subset([4, 1])
    assert [sample.image.getpixel((0, 0))[0] for sample in part] == [40, 10]  # type: ignore[union-attr, index]
    assert part.groups == ["even", "odd"] and part.labels == [0, 1] and part.objects is None and part.name == "numbers"
    assert part.names[0] == "number 4" and part.right_classes(nn.Identity()) == [(4, 7), (1, 7)]
    assert part.paths is None and part.competing_classes(nn.Identity()) is None
    assert part[-1].name == "number 1"
    with pytest.raises(IndexError):
        part[2]


def test_a_limit_draws_by_seed_in_order() -> None:
    data = numbers()
    assert data.limited(None) is data and data.limited(5) is data
    drawn = {tuple(data.limited(2, seed).names) for seed in range(20)}
    assert len(drawn) > 5 and all(first < second for first, second in drawn)
    assert data.limited(3, 4).names == data.limited(3, 4).names
    assert data.limited(1).names[0].startswith("number")


def folders(root: Path) -> ImageSet:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (root / name).parent.mkdir(exist_ok=True)
        picture(0).save(root / name)
    return class_folders(root)


def test_a_subset_of_class_folders(tmp_path: Path) -> None:
    part = folders(tmp_path).subset([2, 0])
    assert list(part.names) == ["b/1.png", "a/1.png"] and list(part.groups or ()) == ["b", "a"]
    assert part[0].name == "b/1.png" and part.class_names == ["a", "b"]
    assert part.right_classes(Named("b", "c", "a")) == [(0,), (2,)] and part.competing_classes(nn.Identity()) is None


def test_labels_are_the_models_classes_where_it_has_them(tmp_path: Path) -> None:
    data = folders(tmp_path)
    assert data.labels is None and data[0].label == -1
    labelled = data.labelled_for(Named("b", "c"))
    assert labelled.labels == [-1, -1, 0] and [sample.label for sample in labelled] == [-1, -1, 0]
    assert data.labelled_for(None).labels == [-1, -1, -1]
    assert labelled.labelled_for(Named("a", "b")) is labelled
    assert data.labelled_for(Named("b", "c"), {"a": 1}).labels == [1, 1, -1]


def test_sets_go_to_other_processes(tmp_path: Path) -> None:
    for data in (folders(tmp_path), numbers().subset([3, 0]), folders(tmp_path).labelled_for(Named("a"))):
        copy = pickle.loads(pickle.dumps(data))
        assert [sample.name for sample in copy] == [sample.name for sample in data]
        assert [sample.label for sample in copy] == [sample.label for sample in data]


class Items:
    def __init__(self, *items: Any, **columns: Any) -> None:
        self.items = items
        self.__dict__.update(columns)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Labelled:
    image, label = picture(3), np.int64(4)


MASK = np.eye(2, 3, dtype=np.float32)


@pytest.mark.parametrize(
    ("item", "label", "name"),
    [
        ((picture(3), 4), 4, "number 0"),
        ([picture(3), torch.tensor(4)], 4, "number 0"),
        ((np.full((2, 3, 3), 3, np.uint8), 4), 4, "number 0"),
        (Labelled(), 4, "number 0"),
        (Sample(picture(3), MASK, 4, None, "mine"), 4, "mine"),
        ((picture(3), MASK, 4), 4, "number 0"),
        ((picture(3), None), -1, "number 0"),
    ],
)
def test_any_data_set_is_a_set(item: Any, label: int, name: str) -> None:
    data = of_dataset(Items(item))
    assert isinstance(data, ImageSet) and len(data) == 1 and data.right_classes(nn.Identity()) is None
    sample = data[0]
    assert (sample.label, sample.name) == (label, name) and sample.image.getpixel((1, 1)) == (3, 3, 3)  # type: ignore[union-attr]
    if isinstance(item, tuple) and len(item) > 2:
        assert sample.mask is not None and np.array_equal(sample.mask, MASK)


def test_a_data_set_tells_what_it_knows_of_its_images() -> None:
    pair = (picture(3), 4)
    data = of_dataset(Items(pair, pair, names=["x", "y"], groups=["a", ""], objects=["o"], labels=[4, 4]), "mine")
    assert (
        isinstance(data, ImageSet) and data.names == ["x", "y"] and data.groups == ["a", ""] and data.labels == [4, 4]
    )
    assert data.objects is None  # of another length
    assert data.name == "mine" and data[1].name == "y" and of_dataset(data) is data


def test_streams_stay_streams_and_other_things_are_refused() -> None:
    stream = StreamSet("s", lambda: iter([(picture(1), 2)]))
    assert of_dataset(stream) is stream and [sample.label for sample in stream] == [2]
    with pytest.raises(UserError, match="numbers is no benchmark: give a folder, or a data set"):
        of_dataset(iter([]), "numbers")


@pytest.mark.parametrize("given", ["builtin/size", "builtin/train", "builtin/validation/size"])
@pytest.mark.quick_where(lambda given: given == "builtin/train")
def test_a_name_means_the_same_pictures_masked_or_not(given: str) -> None:
    (name, plain), (again, masked) = one_of(given), one_of(given, masked=True)
    assert name == again == plain.name and list(plain.names) == list(masked.names) and plain.labels == masked.labels
    assert len(plain) == {"builtin/size": 2400, "builtin/train": 1200, "builtin/validation/size": 1200}[given]
    assert np.array_equal(plain[7].mask, masked[7].mask)  # type: ignore[arg-type]


def test_a_folder_means_the_same_pictures_masked_or_not(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/deep/2.png", "__MACOSX/a/1.png", "b/._2.png"):
        for kind in ("images", "masks"):
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (3, 2), 255).save(tmp_path / kind / name)
    _, plain = one_of(tmp_path / "images")
    for masked in (one_of(tmp_path / "images", None, tmp_path / "masks")[1], one_of(tmp_path, masked=True)[1]):
        assert list(masked.names) == list(plain.names) == ["a/1.png", "b/deep/2.png"]
        assert list(masked.groups or ()) == list(plain.groups or ()) == ["a", "b"]
        assert [sample.mask.sum() for sample in masked] == [6, 6]  # type: ignore[union-attr]
    samples, faults = class_folder_samples(tmp_path / "images", tmp_path / "masks", classes={"a": 0, "b": 1})
    assert list(samples.names) == ["a/1.png", "b/deep/2.png"] and not faults
