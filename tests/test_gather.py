"""Runs from folders: classes matched to the model's, masks beside, held-out samples, a manifest, all faults at once."""

import numpy as np
import pytest
import torch
from PIL import Image

from relevit.data.checks import FaultsError
from relevit.data.gather import gather
from relevit.data.manifest import read_manifest
from relevit.errors import UserError
from relevit.training import finetune
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
