"""data/benchmarks: what is found below a folder, what is not and why, and a YAML of paths."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmark_trees import Classifier, objectnet, save, val_name
from image_sets import opened
from relevit.data.benchmarks import BENCHMARKS, Discovery, find_benchmarks
from relevit.data.benchmarks.imagenet_classes import classes_of, wnids
from relevit.errors import UserError

A, R = (wnids()[classes_of(subset)[0]] for subset in "ar")  # the second is no class of ImageNet-A


def names(found: Discovery) -> list[str]:
    return [each.name for each in found.found]


def reasons(found: Discovery, name: str) -> list[str]:
    return [reason for each, reason in found.missing if each == name]


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    root = tmp_path / "all"
    save(root / "ILSVRC2012" / "val" / "n01440764" / val_name(293))
    save(root / "ILSVRC2012" / "train" / "n01440764" / "n01440764_18.JPEG")
    save(root / "imagenetv2-matched-frequency-format-val" / "7" / "x.jpeg")
    save(root / "imagenetv2-threshold0.7-format-val" / "7" / "x.jpeg")
    save(root / "imagenetv2-top-images-format-val" / "7" / "x.jpeg")
    save(root / "ImageNet-A" / A / "x.jpg")
    save(root / "imagenet_r" / "imagenet-r" / R / "x.jpg")
    save(root / "deep" / "imagenet-sketch" / "sketch" / A / "x.JPEG")
    for severity in range(1, 6):
        save(root / "ImageNet-C" / "weather" / "fog" / str(severity) / "n01440764" / val_name(293))
    objectnet(root / "objectnet" / "objectnet-1.0")
    for part in ("location", "rotation", "size"):
        save(root / "si_score" / f"object_{part}" / "cello" / "x.jpg")
    for each in ("original", "mixed_same", "mixed_rand"):
        save(root / "bg_challenge" / each / "val" / "00_dog" / "x.JPEG")
    save(root / "mine" / "cat" / "x.png")
    save(root / "train" / "cat" / "x.png")
    save(root / "photos" / "x.png")
    (root / "notes").mkdir()
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    return root


def test_all_are_found_by_their_usual_names(everything: Path) -> None:
    found = find_benchmarks(everything)
    assert names(found) == [
        "imagenet",
        "imagenet-real",
        "imagenet-v2",
        "imagenet-v2-threshold-0.7",
        "imagenet-v2-top-images",
        "imagenet-a",
        "imagenet-r",
        "imagenet-sketch",
        *(f"imagenet-c/fog/{severity}" for severity in range(1, 6)),
        "objectnet",
        "si-score-location",
        "si-score-rotation",
        "si-score-size",
        *(f"backgrounds-challenge/{each}" for each in ("original", "mixed_same", "mixed_rand")),
        "mine",
    ]
    for each in found.found:
        if each.name not in ("imagenet-real",):
            data = each.open()
            assert len(data) >= 1
            assert data.name == each.name
            if each.name != "mine":
                assert all(data.right_classes(Classifier(1000)))
    assert reasons(found, "imagenet-c") == [
        f"70 of its 75 sets are not in {everything / 'ImageNet-C'}, such as imagenet-c/gaussian_noise/1"
    ]
    assert "5 of its 8 sets" in reasons(found, "backgrounds-challenge")[0]
    assert "holds training images" in reasons(found, "train")[0]
    assert {name for name, _ in found.missing} == {"imagenet-c", "backgrounds-challenge", "train"}


def test_nothing_is_listed_before_it_is_opened(everything: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("listed")

    monkeypatch.setattr("relevit.data.listing.image_names", refuse)
    found = find_benchmarks(everything)
    assert len(found.found) == 21
    with pytest.raises(AssertionError, match="listed"):
        found.found[0].open()


@pytest.mark.parametrize(
    ("inner", "name"),
    [("ImageNet-A", "imagenet-a"), ("ILSVRC2012", "imagenet"), ("ILSVRC2012/val", "imagenet"), ("objectnet/objectnet-1.0", "objectnet"), ("si_score/object_size", "si-score-size"), ("mine", "mine")],
)  # fmt: skip
def test_a_root_that_is_one_itself(inner: str, name: str, everything: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [name, "imagenet-real"] if name == "imagenet" else [name]
    assert names(find_benchmarks(everything / inner)) == wanted
    monkeypatch.chdir(everything / inner)
    assert names(find_benchmarks(".")) == wanted
    assert names(find_benchmarks(str(everything / inner) + os.sep)) == wanted


def test_the_protocol_reaches_the_sets(everything: Path) -> None:
    for protocol, count in (("standard", 200), ("paper", None)):
        data = {each.name: each for each in find_benchmarks(everything, protocol).found}
        competing = data["imagenet-a"].open().competing_classes(Classifier(1000))
        assert (competing and len(competing)) == count
        assert data["objectnet"].open().right_classes(Classifier(1000))[0] == ((7, 11) if count else (7,))
    with pytest.raises(UserError, match="protocol must be one of standard, paper, not 'both'"):
        find_benchmarks(everything, "both")


def test_a_name_alone_is_not_trusted(tmp_path: Path) -> None:
    save(tmp_path / "imagenet-a" / A / "x.jpg")
    save(tmp_path / "imagenet-a" / R / "x.jpg")
    save(tmp_path / "objectnet" / "chair" / "x.png")
    save(tmp_path / "sketch" / "cat" / "x.png")
    save(tmp_path / "val" / "cat" / "x.png")
    save(tmp_path / "imagenet-v2" / "n01440764" / "x.png")
    found = find_benchmarks(tmp_path)
    assert names(found) == ["sketch", "val"]  # names that any data set may have
    assert reasons(found, "imagenet-a") == [f"there is a folder {tmp_path / 'imagenet-a'}, but {tmp_path / 'imagenet-a'} should hold folders named by wnid, such as {A}, but {R} is none of its 200 classes"]  # fmt: skip
    assert "images/<folder>/*.png and mappings/" in reasons(found, "objectnet")[0]
    assert "named by class index, 0 to 999, but n01440764 is none" in reasons(found, "imagenet-v2")[0]
    assert reasons(found, "imagenet-r") == ["no folder has one of its names (imagenetr, imagenetrendition)"]
    assert len({name for name, _ in found.missing}) == len(BENCHMARKS)


def test_wnid_folders_just_called_val_need_imagenets_names(tmp_path: Path) -> None:
    save(tmp_path / "val" / "n01440764" / "x.png")
    assert names(find_benchmarks(tmp_path)) == ["val"]
    save(tmp_path / "val" / "n01440764" / val_name(3))
    (tmp_path / "val" / "n01440764" / "x.png").unlink()
    assert names(find_benchmarks(tmp_path)) == ["imagenet", "imagenet-real"]


def test_the_nearest_of_several_is_taken(tmp_path: Path) -> None:
    save(tmp_path / "old" / "imagenet-a" / A / "x.jpg")
    save(tmp_path / "imagenet-a" / A / "y.jpg")
    found = find_benchmarks(tmp_path)
    assert [(each.name, each.root) for each in found.found] == [("imagenet-a", tmp_path / "imagenet-a")]
    assert reasons(found, "imagenet-a") == [
        f"{tmp_path / 'old' / 'imagenet-a'} is left out: {tmp_path / 'imagenet-a'} is taken"
    ]


def test_a_collection_that_is_called_like_a_benchmark(tmp_path: Path) -> None:
    save(tmp_path / "imagenet" / "2020" / "notes.png")
    save(tmp_path / "imagenet" / "imagenet-a" / A / "x.jpg")
    save(tmp_path / "imagenet" / "mine" / "cat" / "x.jpg")
    assert names(find_benchmarks(tmp_path / "imagenet")) == ["imagenet-a", "mine"]


def test_links_lead_to_benchmarks(tmp_path: Path) -> None:
    save(tmp_path / "store" / "1" / A / "x.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "imagenet-a").symlink_to(tmp_path / "store" / "1")
    (tmp_path / "root" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "broken").symlink_to(tmp_path / "nowhere")
    assert names(find_benchmarks(tmp_path / "root")) == ["imagenet-a"]


def test_an_empty_and_an_absent_root(tmp_path: Path) -> None:
    found = find_benchmarks(tmp_path)
    assert not found.found and [name for name, _ in found.missing] == list(BENCHMARKS)
    with pytest.raises(UserError, match="holds no class folders with images"):
        opened(tmp_path)
    with pytest.raises(UserError, match="nothing is not a folder"):
        find_benchmarks(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"there is no .*nothing: give a folder, a YAML"):
        opened(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"notes\.txt is no benchmark"):
        opened(tmp_path / "notes.txt")


def test_a_yaml_of_paths(everything: Path) -> None:
    (everything / "store").mkdir()
    (everything / "ImageNet-A").rename(everything / "store" / "any name")
    path = everything / "benchmarks.yaml"
    path.write_text("ImageNet-A: store/any name\nimagenet-c: ImageNet-C\ncats: mine\nmine/train: train\n")
    found = opened(path, "paper")
    assert list(found) == [
        "imagenet-a",
        *(f"imagenet-c/fog/{severity}" for severity in range(1, 6)),
        "cats",
        "mine/train",
    ]
    assert found["imagenet-a"].competing_classes(Classifier(1000)) is None
    assert found["cats"].class_names == ["cat"]
    assert len(opened(everything / "benchmarks.yaml")["imagenet-a"].competing_classes(Classifier(1000))) == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagenet-a: nowhere\n", r"imagenet-a: there is no folder .*nowhere"),
        ("imagenet-a: mine\n", "imagenet-a: .*such as n01498041, but cat is none"),
        (
            "imagenet-b: photos\n",
            r"imagenet-b: this is none of the benchmarks that are known \(imagenet, .*no folder of class folders",
        ),
        ("cats: 3\n", "cats: 3 is no path"),
        ("cats: [mine]\n", "is no path"),
        (
            "cats: mine\nimagenet-a: nowhere\ndogs: other\n",
            "imagenet-a: there is no folder .*; dogs: there is no folder",
        ),
        ("imagenet-a: ImageNet-A\nImageNet_A: ImageNet-A\n", "imagenet-a is named twice"),
        ("- mine\n", "a line each"),
        ("", "a line each"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_broken_yaml_files_are_told(text: str, message: str, everything: Path) -> None:
    path = everything / "paths.yml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert "paths.yml" in str(caught.value) and "\n" not in str(caught.value)


def test_sets_by_compose_are_offered(tmp_path: Path) -> None:
    composed = tmp_path / "composed"
    save(composed / "mixed_same" / "images" / "cat" / "1.png")
    (composed / "compose.json").write_text(json.dumps({"sets": ["mixed_same", "mixed_rand"]}))
    assert names(find_benchmarks(tmp_path)) == ["composed/mixed_same", "composed/mixed_rand"]
    assert names(find_benchmarks(composed)) == ["composed/mixed_same", "composed/mixed_rand"]
    with pytest.raises(UserError, match="its sets are not finished"):
        find_benchmarks(tmp_path).found[0].open()
