"""A small tree with the data sets of the paper in the layouts of their publishers, and a tiny model of 1000 classes."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo

from relevit import save_checkpoint

SIDE = 67  # automatic masks of fewer than 520 pixels are left out
NAMES = ImageNetInfo("imagenet-1k").label_names()  # wnids by class index
TRAINING = ("n01443537", "n01484850", "n01491361", "n01494475", "n01496331", "n01498041")  # of ImageNet-S, in order
IN_A = ("n01498041", "n01531178")
IN_R = ("n01443537", "n01484850")
TINY = {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2, "patch_size": 8}


def save(path: Path, rng: np.random.Generator, size: tuple[int, int] = (SIDE, SIDE + 4)) -> np.ndarray:
    """A picture of noise with a bright middle; returns where the middle is, bool (height, width)."""
    height, width = size
    picture = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
    middle = np.zeros(size, bool)
    middle[height // 4 : 3 * height // 4, width // 4 : 2 * width // 3] = True
    picture[middle] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return middle


def make_tree(root: Path) -> Path:
    """Everything but Sketch: what is not there must be told."""
    rng = np.random.default_rng(7)
    for wnid in NAMES:  # a linear head needs all classes
        if wnid not in TRAINING:
            save(root / "ILSVRC2012" / "train" / wnid / f"{wnid}_0.JPEG", rng, (9, 11))
    for part, count in (("train", 7), ("test", 2)):
        for name in ("cat", "dog", "eel"):
            for i in range(count):
                save(root / "knn" / part / name / f"{i}.png", rng)
    for number, wnid in enumerate(TRAINING, start=1):
        for i in range(3):
            middle = save(root / "ILSVRC2012" / "train" / wnid / f"{wnid}_{i}.JPEG", rng)
            ids = np.zeros((*middle.shape, 3), np.uint8)
            ids[middle] = (number % 256, number // 256, 0)
            mask = root / "ImageNetS919" / "train-semi-segmentation" / wnid / f"{wnid}_{i}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids).save(mask)
    for wnid in (*TRAINING[:2], "n03445777", "n02123045"):
        for i in range(2):
            save(root / "ILSVRC2012" / "val" / wnid / f"{i}.JPEG", rng)
    for folder, wnids in (("imagenet-a", IN_A), ("imagenet-r", IN_R)):
        for wnid in wnids:
            for i in range(2):
                save(root / folder / wnid / f"{i}.jpg", rng)
    for index in (1, 2, 500):
        save(root / "imagenetv2-matched-frequency-format-val" / str(index) / "0.jpeg", rng)
    _objectnet(root / "objectnet-1.0", rng)
    for part, count in (("location", 1), ("rotation", 2), ("size", 1)):
        for name in ("ambulance", "banana"):
            for i in range(count):
                save(root / "si-score" / f"object_{part}" / name / f"{i}.jpg", rng)
        (root / "si-score" / f"object_{part}" / "notes.csv").write_text("a,b\n")
    _gtsegs(root / "gtsegs_ijcv.mat", rng)
    return root


def _objectnet(root: Path, rng: np.random.Generator) -> None:
    labels = [f"label {i}" for i in range(1000)]
    labels[1], labels[2] = "goldfish, Carassius auratus", "great white shark"
    mappings = root / "mappings"
    mappings.mkdir(parents=True)
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(labels) + "\n")
    (mappings / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps({str(i): i for i in range(1000)}))
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps({"gold_fish": "Goldfish", "shark": "Shark"}))
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps({"Goldfish": labels[1], "Shark": labels[2]}))
    for folder in ("gold_fish", "shark"):
        for i in range(2):
            save(root / "images" / folder / f"{i}.png", rng)


def _gtsegs(path: Path, rng: np.random.Generator) -> None:
    with h5py.File(path, "w") as file:
        images = file.create_dataset("value/img", (5, 1), dtype=h5py.ref_dtype)
        truths = file.create_dataset("value/gt", (5, 1), dtype=h5py.ref_dtype)
        for i in range(5):
            width, height = 31 + i, 23 + i
            picture = rng.integers(0, 256, (3, width, height), dtype=np.uint8)
            labels = np.zeros((width, height), np.uint8)
            labels[5:20, 4:12] = 1
            images[i, 0] = file.create_dataset(f"refs/img{i}", data=picture).ref
            inner = file.create_dataset(f"refs/gt{i}", data=labels)
            holder = file.create_dataset(f"refs/holder{i}", (1, 1), dtype=h5py.ref_dtype)
            holder[0, 0] = inner.ref
            truths[i, 0] = holder.ref


def save_tiny(folder: Path, num_classes: int = 1000) -> Path:
    """A tiny ViT as a checkpoint; with 0 classes a backbone."""
    torch.manual_seed(3)
    save_checkpoint(folder, timm.create_model("vit_tiny_patch16_224", num_classes=num_classes, **TINY).eval())
    return folder
