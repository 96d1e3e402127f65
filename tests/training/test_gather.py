"""Runs from folders: classes matched to the model's, masks beside, held-out samples, a manifest, all faults at once."""

import numpy as np
import pytest
import torch
from PIL import Image

from relevit.data.manifest import Row, read_manifest, write_manifest
from relevit.errors import FaultsError, UserError
from relevit.training.loop import finetune
from relevit.training.samples import gather
from tiny_run import CLASSES, SIZE, TinySamples, arguments, tiny_model


def write_folder(root, classes=CLASSES, per_class=5, seed=0):
    """images/CLASS/NAME.png and masks/CLASS/NAME.png of pictures of 24 x 20 pixels."""
    samples = TinySamples(classes * per_class, seed)
    for index in range(len(samples)):
        name = f"{index % classes}/picture {index}.png"
        mask = (255 * samples.masks[index]).astype(np.uint8)
        for kind, array in (("images", samples.images[index]), ("masks", mask)):
            file = root / kind / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).resize((24, 20)).save(file)
    return root / "images", root / "masks"


def test_finetune_from_folders(tmp_path):
    images, masks = write_folder(tmp_path)
    usual = arguments(validation=None, masks=masks, epochs=1)
    result = finetune(tiny_model(), images, tmp_path / "run", **usual)
    rows = read_manifest(tmp_path / "run" / "split.csv")
    held_out = [row for row in rows if row.split == "validation"]
    assert len(rows) == 25 and len(held_out) == 5 and {row.label for row in held_out} == set(range(CLASSES))
    assert all(row.name.startswith(f"{row.label}/picture ") and row.class_name == str(row.label) for row in rows)
    assert set(result.metrics["after"]) >= {"loss", "accuracy", "foreground_share"}
    again = finetune(tiny_model(), str(images), tmp_path / "run", **usual)
    assert again.metrics == result.metrics


def test_another_picture_is_another_run(tmp_path):
    images, masks = write_folder(tmp_path)
    finetune(tiny_model(), images, tmp_path / "run", **arguments(validation=None, masks=masks, epochs=1))
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(images / "2" / "picture 7.png")
    with pytest.raises(UserError, match=r"samples: .* in the folder"):
        finetune(tiny_model(), images, tmp_path / "run", **arguments(validation=None, masks=masks, epochs=1))


def test_classes_are_held_out_where_there_are_many(tmp_path):
    images, masks = write_folder(tmp_path, classes=11, per_class=2)
    training, validation = gather(images, None, tiny_model(num_classes=11), needs_labels=True, masks=masks)
    classes = [{row.label for row in part.rows} for part in (training, validation)]
    assert classes[0] | classes[1] == set(range(11)) and not classes[0] & classes[1] and len(classes[1]) == 2
    assert [row.name for row in training.rows] == [training.samples[i].name for i in range(len(training.samples))]
    numbered, two = gather(images, 2, tiny_model(num_classes=11), needs_labels=True, masks=masks)
    assert len(two.rows) == 4 and len(numbered.rows) == 18


def test_validation_folder(tmp_path):
    images, masks = write_folder(tmp_path / "a")
    others, other_masks = write_folder(tmp_path / "b", per_class=1, seed=1)
    training, validation = gather(
        images, others, tiny_model(), needs_labels=True, masks=masks, validation_masks=other_masks
    )
    assert len(training.rows) == 25 and len(validation.rows) == 5
    with pytest.raises(FaultsError, match="missing mask"):
        (tmp_path / "b" / "masks" / "0" / "picture 0.png").unlink()
        gather(images, others, tiny_model(), needs_labels=True, masks=masks, validation_masks=other_masks)


def test_all_faults_of_a_folder_in_one_list(tmp_path):
    images, masks = write_folder(tmp_path)
    (images / "0" / "picture 0.png").write_bytes(b"no picture")
    (masks / "1" / "picture 1.png").unlink()
    Image.new("L", (24, 20)).save(masks / "2" / "picture 2.png")
    Image.new("L", (9, 9), 255).save(masks / "3" / "picture 3.png")
    (images / "zebra").mkdir()
    Image.new("RGB", (24, 20)).save(images / "zebra" / "z.png")
    Image.new("L", (24, 20), 255).save(masks / "1" / "unused.png")
    with pytest.raises(FaultsError) as error:
        finetune(tiny_model(), images, tmp_path / "run", **arguments(validation=None, masks=masks))
    assert {fault.kind for fault in error.value.faults} == {
        "unreadable image",
        "missing mask",
        "empty mask",
        "mask of another size",
        "unknown class",
    }
    for name in ("picture 0.png", "picture 1.png", "picture 2.png", "picture 3.png", "zebra"):
        assert name in str(error.value)
    assert not (tmp_path / "run").exists()
    usual = arguments(validation=None, masks=masks, epochs=1, skip_bad=True)
    finetune(tiny_model(), images, tmp_path / "run", **usual)
    assert len(read_manifest(tmp_path / "run" / "split.csv")) == 21


def test_alpha_is_the_mask(tmp_path):
    samples = TinySamples(6)
    for index, sample in enumerate(samples):
        file = tmp_path / "images" / str(sample.label) / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        alpha = (255 * sample.mask).astype(np.uint8)
        Image.fromarray(np.dstack([sample.image, alpha])).save(file)
        if index == 5:
            break
    training, _ = gather(tmp_path / "images", TinySamples(2), tiny_model(), needs_labels=True)
    assert len(training.rows) == 6
    assert all(training.samples[i].mask.sum() == 35 for i in range(6))


def test_an_image_tensor_is_used_as_it_is():
    samples = [(torch.randn(3, SIZE, SIZE), np.ones((SIZE, SIZE), np.float32), 1) for _ in range(3)]
    finetune(tiny_model(), samples, None, **arguments(epochs=1, validation=None))
    with pytest.raises(UserError, match="only in pictures"):
        swap = arguments(epochs=1, validation=None, method="background_swap", options={"swap_probability": 1.0})
        finetune(tiny_model(), samples, None, **swap)


def test_a_manifest_names_the_samples(tmp_path):
    images, masks = write_folder(tmp_path)
    (images / "4" / "picture 4.png").write_bytes(b"no picture")  # is not named, and not read
    rows = [
        Row("3/picture 3.png", "3", 3, "training"),
        Row("0/picture 15.png", "0", -1, "training"),
        Row("2/picture 2.png", "2", 2, "validation"),
        Row("1/picture 6.png", "1", 1, "training"),
    ]
    write_manifest(tmp_path / "split.csv", rows)
    usual = {"needs_labels": True, "masks": masks, "manifest": tmp_path / "split.csv"}
    training, validation = gather(images, None, tiny_model(), **usual)
    assert [row.name for row in training.rows] == [row.name for row in rows if row.split == "training"]
    assert [training.samples[index].name for index in range(3)] == [row.name for row in training.rows]
    assert [row.label for row in training.rows] == [3, 0, 1]
    assert [row.name for row in validation.rows] == ["2/picture 2.png"] and validation.rows[0].split == "validation"
    only, nothing = gather(images, None, tiny_model(), **{**usual, "manifest": written(tmp_path, rows[:2])})
    assert len(only.rows) == 2 and nothing is None
    run = arguments(validation=None, masks=masks, manifest=tmp_path / "split.csv", epochs=1)
    finetune(tiny_model(), images, tmp_path / "run", **run)
    assert read_manifest(tmp_path / "run" / "split.csv") == [*training.rows, *validation.rows]
    # what a run has written gives the same again
    again, _ = gather(images, None, tiny_model(), **{**usual, "manifest": tmp_path / "run" / "split.csv"})
    assert again.fingerprint == training.fingerprint


def written(folder, rows):
    path = folder / "other.csv"
    write_manifest(path, rows)
    return path


def test_faults_of_a_manifest(tmp_path):
    images, masks = write_folder(tmp_path)
    good = [Row("3/picture 3.png", "3", 3, "training"), Row("2/picture 2.png", "2", 2, "validation")]
    lost = Row("0/lost.png", "0", 0, "training")
    outside = Row("../masks/0/picture 0.png", "0", 0, "training")

    def call(rows, **more):
        usual = {"needs_labels": True, "masks": masks, "manifest": written(tmp_path, rows)}
        return gather(images, more.pop("validation", None), tiny_model(), **{**usual, **more})

    with pytest.raises(FaultsError) as error:
        call([*good, lost, outside])
    assert [fault.kind for fault in error.value.faults] == ["missing image"] * 2 and "lost.png" in str(error.value)
    assert [row.name for row in call([*good, lost], skip_bad=True)[0].rows] == ["3/picture 3.png"]
    with pytest.raises(FaultsError, match=r"lost\.png"):
        call([lost], skip_bad=True)
    with pytest.raises(UserError, match=r"picture 1\.png the label 4, it is class 1"):
        call([*good, Row("1/picture 1.png", "1", 4, "training")])
    with pytest.raises(UserError, match=r"names 3/picture 3\.png twice"):
        call([*good, good[0]._replace(split="validation")])
    with pytest.raises(UserError, match="'test': the split must be"):
        call([good[0]._replace(split="test")])
    with pytest.raises(UserError, match="no samples for training"):
        call(good[1:])
    with pytest.raises(UserError, match="give one of them"):
        call(good, validation=0.2)
    with pytest.raises(UserError, match=r"none\.csv cannot be read"):
        call(good, manifest=tmp_path / "none.csv")


def test_a_manifest_of_a_data_set(tmp_path):
    rows = [
        Row(f"picture-{index}", "", -1, part) for index, part in ((5, "training"), (1, "training"), (2, "validation"))
    ]
    usual = {"needs_labels": True, "manifest": written(tmp_path, rows)}
    training, validation = gather(TinySamples(7), None, tiny_model(), **usual)
    assert [row.name for row in training.rows] == ["picture-5", "picture-1"] and len(validation.rows) == 1
    with pytest.raises(UserError, match="picture-5"):
        gather(TinySamples(3), None, tiny_model(), **usual)


def test_ignored_regions_of_a_folder(tmp_path):
    images, masks = write_folder(tmp_path)
    region = np.zeros((20, 24), np.uint8)
    region[3:5, 7:] = 255
    for name in ("0/picture 5.png", "2/picture 22.png"):
        (tmp_path / "ignore" / name).parent.mkdir(parents=True)
        Image.fromarray(region).save(tmp_path / "ignore" / name)
    usual = {"needs_labels": True, "masks": masks}
    plain, _ = gather(images, None, tiny_model(), **usual)
    training, validation = gather(images, None, tiny_model(), **usual, ignore=tmp_path / "ignore")
    assert training.fingerprint != plain.fingerprint  # the run's identity holds the regions, too
    found = {sample.name: sample.ignore for part in (training, validation) for sample in map(part.samples.__getitem__, range(len(part.rows)))}  # fmt: skip
    assert np.array_equal(found["0/picture 5.png"], region > 0) and np.array_equal(
        found["2/picture 22.png"], region > 0
    )
    assert sum(one is not None for one in found.values()) == 2
    run = arguments(validation=None, masks=masks, ignore=tmp_path / "ignore", epochs=1)
    finetune(tiny_model(), images, tmp_path / "run", **run)
    with pytest.raises(UserError, match="another configuration"):
        finetune(tiny_model(), images, tmp_path / "run", **{**run, "ignore": None})
    # of a validation folder, where it has no masks of its own
    _, shared = gather(images, images, tiny_model(), **usual, ignore=tmp_path / "ignore")
    _, own = gather(images, images, tiny_model(), **usual, ignore=tmp_path / "ignore", validation_masks=masks)
    assert shared.fingerprint != own.fingerprint
    with pytest.raises(UserError, match=r"no folder .*none"):
        gather(images, None, tiny_model(), **usual, ignore=tmp_path / "none")
    with pytest.raises(UserError, match="ignore is for a folder of samples"):
        gather(TinySamples(3), None, tiny_model(), needs_labels=True, ignore=tmp_path / "ignore")
