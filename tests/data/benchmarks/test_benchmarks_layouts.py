"""data/benchmarks: each benchmark in its layout on the disk, read image by image, with the right answers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from benchmark_trees import MODEL, objectnet, opened, rows, save, val_name
from relevit.data.benchmarks import BENCHMARKS
from relevit.data.benchmarks.imagenet import read_labels
from relevit.data.benchmarks.imagenet_classes import classes_of, index_of, wnids
from relevit.errors import UserError

# ImageNet's validation set


def test_validation_in_class_folders(tmp_path: Path) -> None:
    save(tmp_path / "imagenet" / "val" / "n15075141" / "ILSVRC2012_val_00000002.png", 2)
    save(tmp_path / "imagenet" / "val" / "n01443537" / "ILSVRC2012_val_00000007.png", 7)
    save(tmp_path / "imagenet" / "train" / "n01443537" / "n01443537_1.png", 9)
    (tmp_path / "imagenet" / "val" / "n01440764").mkdir()
    assert rows(opened("imagenet", tmp_path / "imagenet")) == {
        "n01443537/ILSVRC2012_val_00000007.png": ("n01443537", (1,), 7),
        "n15075141/ILSVRC2012_val_00000002.png": ("n15075141", (999,), 2),
    }


KIT = "ILSVRC2012_devkit_t12/data"


def meta(path: Path, ids: dict[str, int]) -> None:
    """The development kit's meta.mat: leaves and inner nodes in a struct array of (n, 1), as it is published."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.empty((len(ids) + 1, 1), dtype=fields)
    for row, (wnid, number) in enumerate(ids.items()):
        synsets[row, 0] = (float(number), wnid, "words", 0.0)
    synsets[len(ids), 0] = (1001.0, "n00001740", "entity", 2.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"synsets": synsets})


def flat(root: Path, numbers: tuple[int, ...] = (2, 3, 5)) -> Path:
    for number in numbers:
        save(root / "val" / val_name(number), 0)
    return root


WANTED = {val_name(2): ("n15075141", (999,)), val_name(3): ("n01440764", (0,)), val_name(5): ("n01443537", (1,))}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("val.txt", f"{val_name(3)} 0\n{val_name(5)} 1\n{val_name(2)} 999\n{val_name(1)} 4\n"),
        ("val/val.txt", f"val/{val_name(3)}\tn01440764\nval/{val_name(5)}\tn01443537\nval/{val_name(2)}\tn15075141\n"),
        ("val.csv", f"file,class\n{val_name(3)},0\n{val_name(5)},1\n{val_name(2)},999\n"),
        (
            "LOC_val_solution.csv",
            "ImageId,PredictionString\nILSVRC2012_val_00000005,n01443537 85 1 499 272 \n"
            "ILSVRC2012_val_00000003,n01440764 1 2 3 4 n01440764 5 6 7 8 \nILSVRC2012_val_00000002,n15075141 1 2 3 4 \n",
        ),
        ("imagenet_2012_validation_synset_labels.txt", "n01484850\nn15075141\nn01440764\nn01484850\nn01443537\n"),
    ],
)
def test_flat_files_with_a_list(name: str, text: str, tmp_path: Path) -> None:
    flat(tmp_path)
    (tmp_path / name).write_text(text)
    found = rows(opened("imagenet", tmp_path))
    assert {key: row[:2] for key, row in found.items()} == WANTED


def test_kaggles_layout(tmp_path: Path) -> None:
    flat(tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    trap = tmp_path / "ILSVRC" / "ImageSets" / "CLS-LOC" / "val.txt"  # numbers its images, and has no classes
    trap.parent.mkdir(parents=True)
    trap.write_text("".join(f"ILSVRC2012_val_{number:08d} {number}\n" for number in range(1, 7)))
    lines = [f"{key.removesuffix('.JPEG')},{wnid} 1 2 3 4\n" for key, (wnid, _) in WANTED.items()]
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(lines))
    assert {key: row[:2] for key, row in rows(opened("imagenet", tmp_path / "ILSVRC")).items()} == WANTED
    with pytest.raises(UserError, match="tells no classes"):
        read_labels(trap)


def test_ids_of_the_development_kit_go_through_meta_mat(tmp_path: Path) -> None:
    ids = {wnid: 1 + (number * 7 + 3) % 1000 for number, wnid in enumerate(wnids())}  # another order than the wnids'
    meta(tmp_path / KIT / "meta.mat", ids)
    classes = ["n01484850", "n15075141", "n01440764", "n01484850", "n01443537"]
    truth = tmp_path / KIT / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("".join(f"{ids[wnid]}\n" for wnid in classes))
    assert read_labels(truth) == {number: index_of()[wnid] for number, wnid in enumerate(classes, start=1)}
    flat(tmp_path)
    assert {key: row[:2] for key, row in rows(opened("imagenet", tmp_path)).items()} == WANTED
    truth.write_text("1\n0\n3\n")
    with pytest.raises(UserError, match="line 2: '0' is no ILSVRC2012_ID"):
        read_labels(truth)
    (tmp_path / KIT / "meta.mat").write_bytes(b"MATLAB 5.0, cut short")
    with pytest.raises(UserError, match=r"meta\.mat cannot be read"):
        read_labels(truth)
    meta(tmp_path / KIT / "meta.mat", dict(list(ids.items())[:-1]))
    with pytest.raises(UserError, match=r"meta\.mat does not give the 1,000 ids"):
        read_labels(truth)
    (tmp_path / KIT / "meta.mat").unlink()
    with pytest.raises(UserError, match=r"meta\.mat is missing.*not in the order of the wnids"):
        BENCHMARKS["imagenet"].sets(tmp_path, "standard")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{val_name(2)} 999\n{val_name(3)} 0\n", r"no label for ILSVRC2012_val_00000005\.JPEG \(1 of 3 images\)"),
        (f"{val_name(2)} 999\n{val_name(3)} 1000\n", "line 2: '1000' is neither a wnid of ImageNet nor a class index"),
        (f"{val_name(2)} 999\n{val_name(3)} n00000001\n", "line 2: 'n00000001' is neither"),
        (f"{val_name(2)} 999\nphoto.jpg 3\n", r"line 2: 'photo\.jpg' is no validation image"),
        (f"{val_name(2)}\n", "line 1: there is no class after"),
        ("".join(f"{val_name(number)} {number}\n" for number in (2, 3, 5)), "tells no classes"),
        ("", "tells no classes"),
        (b"\xff\xfe\x00", r"val\.txt cannot be read"),
    ],
)
def test_broken_lists_are_told(text: str | bytes, message: str, tmp_path: Path) -> None:
    flat(tmp_path)
    (tmp_path / "val.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        opened("imagenet", tmp_path)


def test_flat_files_without_a_list_and_training_images_fail(tmp_path: Path) -> None:
    flat(tmp_path / "a")
    with pytest.raises(UserError, match="flat files without a list"):
        opened("imagenet", tmp_path / "a")
    save(tmp_path / "b" / "n01440764" / "n01440764_10026.png")
    with pytest.raises(UserError, match=r"training images, such as n01440764_10026\.png"):
        opened("imagenet", tmp_path / "b")
    with pytest.raises(UserError, match="neither folders named by wnid"):
        opened("imagenet", tmp_path)


# Reassessed labels


def real_json(path: Path, entries: dict[int, list[int]], length: int = 50_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([entries.get(number, []) for number in range(length)]))


def test_reassessed_labels_belong_to_the_images_numbers(tmp_path: Path) -> None:
    for number, wnid in ((2, "n15075141"), (3, "n01440764"), (5, "n01440764"), (50_000, "n01440764")):
        save(tmp_path / "val" / wnid / val_name(number))
    entries = {1: [7, 999], 2: [0], 3: [11], 5: [13], 49_999: [4]}  # places: image 2 is at 1
    real_json(tmp_path / "imagenet-real" / "real.json", entries)
    found = rows(opened("imagenet-real", tmp_path))
    assert {key: row[:2] for key, row in found.items()} == {
        f"n01440764/{val_name(3)}": ("n01440764", (0,)),
        f"n01440764/{val_name(50_000)}": ("n01440764", (4,)),
        f"n15075141/{val_name(2)}": ("n15075141", (7, 999)),  # image 5 has none and is left out
    }


def test_reassessed_labels_without_a_file_are_timms(tmp_path: Path) -> None:
    for number, wnid in ((1, "n01751748"), (2, "n09193705")):
        save(tmp_path / "val" / wnid / val_name(number))
    assert [row[1] for row in rows(opened("imagenet-real", tmp_path)).values()] == [
        (970, 795)
    ]  # the first has no label


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[1], [2]]", "has 2 entries: expected one for each of the 50,000"),
        ("[[1], ", "is not valid JSON"),
        ("{}", "a JSON list"),
        (json.dumps([[3]] * 17 + [[1000]] + [[3]] * 49_982), r"entry 18: \[1000\] is no list of class indices"),
        (json.dumps([3] * 50_000), "entry 1: 3 is no list"),
        (json.dumps([[True]] * 50_000), r"entry 1: \[True\] is no list"),
    ],
)
def test_a_broken_real_json_is_told(content: str, message: str, tmp_path: Path) -> None:
    save(tmp_path / "val" / "n01751748" / val_name(1))
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        opened("imagenet-real", tmp_path)
    assert "real.json" in str(caught.value)


def test_reassessed_labels_need_the_names_of_the_images(tmp_path: Path) -> None:
    save(tmp_path / "val" / "n01751748" / "1.jpg")
    with pytest.raises(UserError, match=r"1\.jpg is not named as ImageNet's validation images"):
        opened("imagenet-real", tmp_path)


# Sets named by wnid or index


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_the_sets_own_classes_compete_in_the_standard_protocol(name: str, tmp_path: Path) -> None:
    classes = classes_of(name[-1])
    for place in (0, 17, 199):
        save(tmp_path / wnids()[classes[place]] / "x.png", place)
    wanted = {
        f"{wnids()[classes[place]]}/x.png": (wnids()[classes[place]], (classes[place],), place)
        for place in (0, 17, 199)
    }
    for protocol, competing in (("standard", list(classes)), ("paper", None)):
        data = opened(name, tmp_path, protocol)
        assert rows(data) == wanted and data.competing_classes(MODEL) == competing
    outsider = next(wnid for index, wnid in enumerate(wnids()) if index not in classes)
    save(tmp_path / outsider / "x.png")
    with pytest.raises(UserError, match=f"{tmp_path} should hold .*, but {outsider} is none of its 200 classes"):
        opened(name, tmp_path)


def test_sketch_and_inner_folders(tmp_path: Path) -> None:
    save(tmp_path / "sketch" / "val" / "n01443537" / "sketch_3.png", 3)
    data = opened("imagenet-sketch", tmp_path / "sketch")
    assert rows(data) == {"n01443537/sketch_3.png": ("n01443537", (1,), 3)} and data.competing_classes(MODEL) is None


def test_folders_of_v2_are_numbers_and_not_places(tmp_path: Path) -> None:
    for number in (0, 2, 10, 999):
        save(tmp_path / str(number) / "x.png", number % 251)
    wanted = {f"{number}/x.png": (str(number), (number,), number % 251) for number in (0, 2, 10, 999)}
    for variant in ("imagenet-v2", "imagenet-v2-threshold-0.7", "imagenet-v2-top-images"):
        assert rows(opened(variant, tmp_path)) == wanted
    save(tmp_path / "1000" / "x.png")
    with pytest.raises(UserError, match="named by class index, 0 to 999, but 1000 is none"):
        opened("imagenet-v2", tmp_path)


def test_leftovers_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "n01443537" / "x.png")
    save(tmp_path / "n01443537" / "._x.png")
    save(tmp_path / "__MACOSX" / "n01443537" / "x.png")
    save(tmp_path / ".cache" / "x.png")
    (tmp_path / "n01440764").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "README.txt").write_text("read me")
    (tmp_path / "n01443537" / "archive.tar").write_bytes(b"")
    assert list(rows(opened("imagenet-sketch", tmp_path))) == ["n01443537/x.png"]


def test_linked_folders_are_read(tmp_path: Path) -> None:
    save(tmp_path / "store" / "x.png", 4)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "n01443537").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "store")
    assert rows(opened("imagenet-sketch", tmp_path / "set")) == {"n01443537/x.png": ("n01443537", (1,), 4)}


def test_empty_and_absent_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="named by wnid, such as n01498041, but it holds no folders"):
        opened("imagenet-a", tmp_path)
    (tmp_path / "n01498041").mkdir()
    with pytest.raises(UserError, match=r"class folders of .* are empty"):
        opened("imagenet-a", tmp_path)


def test_corruptions_by_severity(tmp_path: Path) -> None:
    for grey, place in enumerate(
        ["noise/gaussian_noise/1", "noise/gaussian_noise/3", "weather/fog/5", "snow/2", "extra/spatter/4"]
    ):
        save(tmp_path / place / "n01443537" / val_name(7).replace("JPEG", "png"), grey)
    (tmp_path / "blur" / "defocus_blur" / "1").mkdir(parents=True)  # unpacked in part
    sets = BENCHMARKS["imagenet-c"].sets(tmp_path, "standard")
    names = ["gaussian_noise/1", "gaussian_noise/3", "snow/2", "fog/5", "spatter/4"]
    assert list(sets) == [f"imagenet-c/{name}" for name in names]
    for name, grey in zip(names, (0, 1, 3, 2, 4), strict=True):
        data = sets[f"imagenet-c/{name}"]()
        assert data.name == f"imagenet-c/{name}" and [row[1:] for row in rows(data).values()] == [((1,), grey)]
    with pytest.raises(UserError, match="none of the folders <corruption>/<severity>"):
        BENCHMARKS["imagenet-c"].sets(tmp_path / "blur", "standard")


# ObjectNet


def test_objectnet_standard_takes_any_label_and_crops_the_border(tmp_path: Path) -> None:
    data = opened("objectnet", objectnet(tmp_path))
    assert rows(data) == {
        "a_chair/0.png": ("a_chair", (7, 11), 3),  # lines 3 and 1, counted from 0
        "a_chair/1.png": ("a_chair", (7, 11), 3),
        "mug/0.png": ("mug", (999,), 4),
        "mug/1.png": ("mug", (999,), 4),  # the tray is not in ImageNet
    }
    image = np.asarray(data[0].image)
    assert image.shape == (5, 9, 3) and (image == 3).all() and data.competing_classes(MODEL) is None


def test_objectnet_paper_takes_the_first_label_keeps_the_border(tmp_path: Path) -> None:
    data = opened("objectnet", objectnet(tmp_path), "paper")
    assert [row[1] for row in rows(data).values()] == [(7,), (7,), (999,), (999,)]
    image = np.asarray(data[0].image)
    assert image.shape == (7, 11, 3) and (image[0, :, 0] == 255).all() and (image[:, -1, 1] == 0).all()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("folder_to_objectnet_label.json", None, "cannot be read .*it comes with the data set"),
        ("imagenet_to_label_2012_v2", None, "cannot be read .*it comes with the data set"),
        ("objectnet_to_imagenet_1k.json", "{", "is not valid JSON"),
        ("objectnet_to_imagenet_1k.json", "[]", "a JSON object"),
        ("folder_to_objectnet_label.json", '{"mug": "Mug", "tray": "Tray"}', "has no entry for the folder a_chair"),
        ("objectnet_to_imagenet_1k.json", '{"Mug": "cup"}', "'Mug' leads to 'cup', which is no line of"),
        ("objectnet_to_imagenet_1k.json", '{"Mug": "mug; "}', "'Mug' leads to ''"),
        ("objectnet_to_imagenet_1k.json", '{"Bowl": "mug"}', "none of the labels of the folders"),
        ("pytorch_to_imagenet_2012_id.json", '{"0": 3}', r"no class for line 1 \('chair, one', counted from 0\)"),
        ("pytorch_to_imagenet_2012_id.json", '{"1000": 3}', "'1000': 3 should be a class index"),
        ("pytorch_to_imagenet_2012_id.json", '{"1": "x"}', "'1': 'x' should be a class index"),
        ("pytorch_to_imagenet_2012_id.json", '{"1": 3, "2": 3}', "leads two classes, 1 and 2, to line 3"),
    ],
)
def test_broken_mappings_of_objectnet_are_told(file: str, content: str | None, message: str, tmp_path: Path) -> None:
    path = objectnet(tmp_path) / "mappings" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        BENCHMARKS["objectnet"].sets(tmp_path, "standard")
    assert file in str(caught.value)


def test_objectnet_without_images(tmp_path: Path) -> None:
    (objectnet(tmp_path) / "images").rename(tmp_path / "pictures")
    with pytest.raises(UserError, match=r"there are no folders in .*images"):
        BENCHMARKS["objectnet"].sets(tmp_path, "standard")


# SI-Score and the Backgrounds Challenge


def test_si_score_with_stray_files(tmp_path: Path) -> None:
    save(tmp_path / "object_size" / "balance beam" / "1.png", 1)
    save(tmp_path / "object_size" / "pitcher (container)" / "2.png", 2)
    save(tmp_path / "object_size" / "kite" / "3.png", 3)
    (tmp_path / "object_size" / "areas.csv").write_text("stray")
    (tmp_path / "object_size" / "kite" / "areas.csv").write_text("stray")
    assert rows(opened("si-score-size", tmp_path / "object_size")) == {
        "balance beam/1.png": ("balance beam", (416,), 1),
        "kite/3.png": ("kite", (21,), 3),
        "pitcher (container)/2.png": ("pitcher (container)", (725,), 2),
    }
    save(tmp_path / "object_size" / "unicorn" / "3.png", 3)
    with pytest.raises(UserError, match="unicorn is none"):
        opened("si-score-size", tmp_path / "object_size")


def test_si_score_names_with_underscores(tmp_path: Path) -> None:
    save(tmp_path / "Balance_beam" / "1.png", 1)
    assert rows(opened("si-score-rotation", tmp_path)) == {"Balance_beam/1.png": ("Balance_beam", (416,), 1)}


def test_backgrounds_challenge(tmp_path: Path) -> None:
    save(tmp_path / "bg_challenge" / "mixed_rand" / "val" / "00_dog" / "fg_n1_3_bg_n2_5.png", 1)
    save(tmp_path / "bg_challenge" / "mixed_rand" / "val" / "08_fish" / "fg_n1_4_bg_n2_6.png", 2)
    save(tmp_path / "bg_challenge" / "mixed_same" / "val" / "00_dog" / "fg_n1_3_bg_n1_9.png", 3)
    save(tmp_path / "bg_challenge" / "original" / "02_wheeled vehicle" / "n3_1.png", 4)
    sets = BENCHMARKS["backgrounds-challenge"].sets(tmp_path, "standard")
    assert list(sets) == [f"backgrounds-challenge/{name}" for name in ("original", "mixed_same", "mixed_rand")]
    same, mixed = sets["backgrounds-challenge/mixed_same"](), sets["backgrounds-challenge/mixed_rand"]()
    assert same.objects == ["n1_3"] and mixed.objects == ["n1_3", "n1_4"]
    assert sets["backgrounds-challenge/original"]().objects is None
    found = rows(mixed)
    dog, fish = (found[key][1] for key in sorted(found))
    assert 151 in dog and 0 in fish and not set(dog) & set(fish) and len(dog) == 116 and len(fish) == 16
    assert mixed.competing_classes(MODEL) is None
    save(tmp_path / "bg_challenge" / "only_fg" / "val" / "00_fish" / "x.png")  # a number that is not the name's
    with pytest.raises(UserError, match="00_fish is none of its nine classes"):
        BENCHMARKS["backgrounds-challenge"].sets(tmp_path, "standard")


@pytest.mark.parametrize("name", ["objectnet", "imagenet-sketch"])
def test_sets_can_be_sent_to_other_processes(name: str, tmp_path: Path) -> None:
    save(objectnet(tmp_path) / "n01443537" / "x.png")
    data = opened(name, tmp_path)
    copy = pickle.loads(pickle.dumps(data))
    assert rows(copy) == rows(data)
