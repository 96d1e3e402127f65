"""Measurements in a folder: they go on after an interruption, take further models, and share images among processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from launching import launch
from relevit.data.benchmarks import class_folders
from relevit.data.folder import images_with_masks
from relevit.errors import UserError
from relevit.evaluation.measurements import MEASUREMENTS, measure
from relevit.models.loading import data_config, save_checkpoint
from relevit.models.view import evaluation_view
from rows_on_disk import files, small_shards, stop_after

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 5}


def tiny(seed: int) -> tuple[torch.nn.Module, Any]:
    torch.manual_seed(seed)
    model = timm.create_model("vit_tiny_patch16_224", **SIZES)
    return model, evaluation_view(data_config(model))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """images/<class>/<n>.png, masks and others to train on, of 2 classes, 17 images in shards of 4; one cannot be read."""
    small_shards(monkeypatch, 4)
    rng = np.random.default_rng(0)
    for number in range(17):
        picture = rng.integers(0, 256, (37, 41, 3), dtype=np.uint8)
        mask = np.zeros((37, 41), np.uint8)
        mask[5:23, 7:29] = 255
        other = rng.integers(0, 256, (37, 41, 3), dtype=np.uint8)
        for kind, values in (("images", picture), ("masks", mask), ("train", other)):
            path = tmp_path / "data" / kind / str(number % 2) / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    (tmp_path / "data" / "images" / "1" / "03.png").write_bytes(b"no picture")
    return tmp_path / "data"


OPTIONS: dict[str, dict[str, Any]] = {
    "segmentation": {},
    "localization": {},
    "perturbation": {"shares": [0.3, 0.7]},
    "insertion_deletion": {"steps": 3},
    "knn": {"k": 3},
    "sufficient_subsets": {"remove": 0.5},
}


def call(test: str, data: Path, models: dict[str, Any], out: Path | None = None) -> dict[str, Any]:
    row = MEASUREMENTS[test]
    masked = row.needs == "masks"
    images: Any = images_with_masks(data / "images", data / "masks") if masked else class_folders(data / "images")
    train = class_folders(data / "train") if row.needs == "train_and_test" else None
    found = measure(test, models, images, train=train, out=out, batch_size=3, options={**OPTIONS[test], "seed": 7})
    return {name: result.to_dict() for name, result in found.items()}


@pytest.mark.parametrize("test", list(OPTIONS))
@pytest.mark.quick_where(lambda test: test in ("localization", "knn"))
def test_it_goes_on_and_takes_another_model(
    test: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"one": tiny(1), "two": tiny(2)}
    expected = call(test, data, models)
    assert expected["one"] != expected["two"] and expected["one"]["images"] == 16
    assert [left["name"] for left in expected["one"]["left_out"]] == ["1/03.png"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert call(test, data, models, whole) == expected
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            call(test, data, {"one": models["one"]}, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert len(before) == 3
    assert call(test, data, {"one": models["one"]}, out) == {"one": expected["one"]}
    assert call(test, data, models, out) == expected
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing is done again
    assert files(out, "*.parquet") == files(whole, "*.parquet") and len(files(out, "*.parquet")) == (
        20 if test == "knn" else 10
    )


def test_other_options_and_weights_are_refused(data: Path, tmp_path: Path) -> None:
    call("localization", data, {"one": tiny(1)}, tmp_path / "out")
    with pytest.raises(UserError, match="model one has other weights"):
        call("localization", data, {"one": tiny(2)}, tmp_path / "out")
    with pytest.raises(UserError, match=r"options was .*'seed': 7.*, now .*'seed': 8"):
        images = images_with_masks(data / "images", data / "masks")
        measure("localization", {"one": tiny(1)}, images, out=tmp_path / "out", options={"seed": 8})
    with pytest.raises(UserError, match="test was 'localization', now 'segmentation'"):
        call("segmentation", data, {"one": tiny(1)}, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("test", ["localization", "insertion_deletion"])
def test_two_processes_write_what_one_writes(test: str, data: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):  # shards of a real call have 64 images
        for copy in range(8):
            for path in sorted((data / kind / "0").glob("??.png")):
                (data / kind / "0" / f"{path.stem}_{copy}.png").write_bytes(path.read_bytes())
    for seed in (1, 2):
        save_checkpoint(tmp_path / str(seed), tiny(seed)[0])
    masks = ["--masks", data / "masks"] if test == "localization" else ["--options", "{steps: 3}"]
    words = ["measure", test, tmp_path / "1", tmp_path / "2", "--data", data / "images", *masks, "--out"]
    for name, processes in (("single", 1), ("double", 2)):
        done = launch(*words, tmp_path / name, processes=processes)
        assert done.returncode == 0, done.stderr
    assert files(tmp_path / "double", "*.parquet") == files(tmp_path / "single", "*.parquet")
    single, double = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("single", "double"))
    assert single == double and single["models"][str(tmp_path / "1")]["intervals"]
    assert done.stdout.count("figures of every image") == 1
