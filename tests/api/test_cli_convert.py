"""`relevit convert`, `relevit split` and `relevit finetune --manifest`, from an ImageNet-S tree to a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from timm.data import ImageNetInfo

import command_line
from command_line import call
from mask_trees import class_ids, imagenet_s, rectangle, save, wnids
from relevit.data.annotations import FORMATS, MERGED
from relevit.data.manifest import read_manifest
from relevit.models.loading import save_checkpoint
from tiny_run import tiny_model

FOLDERS = wnids(11)
fails = partial(command_line.fails, lines=None)  # faults have a line each


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "classes.txt").write_text("\n".join(FOLDERS))
    return imagenet_s(tmp_path, FOLDERS, 4)


def test_from_imagenet_s_to_a_run(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = ["--class-list", tmp_path / "classes.txt", "--no-progress"]
    out, manifest, run = tmp_path / "out", tmp_path / "split.csv", tmp_path / "run"
    call("convert", "imagenet-s", tree, "--out", out, *usual)
    shown = capsys.readouterr()
    assert "24 images of 6 classes, 6 with ignored pixels" in shown.out and "5 merged classes" in shown.err
    following = re.search(r"next: relevit (.*) --model MODEL --out RUN", shown.out)
    assert following is not None

    numbers = ["--classes", 4, "--min-pixels", 70]
    call("split", "--masks", out / "masks", "--images", out / "images", "--out", manifest, *numbers, "--no-progress")
    assert "training: 12 samples of 4 classes" in capsys.readouterr().out
    raw = tmp_path / "raw.csv"
    call("split", "--masks", tree, "--format", "imagenet-s", "--out", raw, *numbers, *usual)
    assert raw.read_text() == manifest.read_text()
    seeded = ["--seed", 1, "--class-seed", 2, "--per-class", 2, "--validation-classes", 1, "--validation-per-class", 3]
    call("split", "--masks", tree, "--format", "imagenet-s", "--out", tmp_path / "b.csv", *numbers, *usual, *seeded)
    assert [row.split for row in read_manifest(tmp_path / "b.csv")] == ["training"] * 8 + ["validation"] * 3

    save_checkpoint(tmp_path / "model", tiny_model(num_classes=1000))
    quick = ["--epochs", 1, "--batch-size", 4, "--no-progress", "--track", "none", "--previews", 1]
    call(*following[1].split(), "--model", tmp_path / "model", "--manifest", manifest, "--out", run, *quick)
    rows = read_manifest(run / "split.csv")
    assert rows == read_manifest(manifest) and len(rows) == 14
    labels = ImageNetInfo().label_names()
    assert all(labels[row.label] == row.class_name not in MERGED for row in rows)

    (out / "images" / rows[0].name).unlink()
    lost = ["finetune", "--images", out / "images", "--masks", out / "masks", "--model", tmp_path / "model"]
    capsys.readouterr()
    text = fails(capsys, *lost, "--manifest", manifest, "--out", tmp_path / "other")
    assert "missing image (1)" in text and rows[0].name in text and not (tmp_path / "other").exists()


def test_faults_are_listed_at_the_end(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = ["imagenet-s", tree, "--class-list", tmp_path / "classes.txt", "--out", tmp_path / "out", "--no-progress"]
    name = next(name for name in FOLDERS if name not in MERGED)
    two = class_ids(rectangle(0), FOLDERS.index(name) + 1)
    two[0, 0] = (9, 1, 0)
    save(tree / f"train-semi-segmentation/{name}/{name}_8.png", two)
    (tree / f"train-semi/{name}/{name}_9.JPEG").unlink()
    text = fails(capsys, "convert", *usual)
    assert "several objects in one mask (1)" in text and f"{name}_8.png" in text and "265" in text
    assert "missing image (1)" in text and f"{name}_9" in text and not (tmp_path / "out").exists()
    call("convert", *usual, "--skip-bad", "--copy", "--protocol", "paper", "--min-pixels", 10)
    shown = capsys.readouterr()
    assert "22 images of 6 classes, 0 with ignored pixels" in shown.out and "--ignore" not in shown.out
    assert "left out for their faults" in shown.err and "missing image (1)" in shown.err
    assert "there already" in fails(capsys, "convert", *usual)


def test_wrong_arguments_are_one_line(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", tmp_path / "new"]
    assert "choose one of imagenet-s" in fails(capsys, "convert", "imagenet", tree, *out)
    assert "no file or folder" in fails(capsys, "convert", "png", tmp_path / "none", *out)
    assert "--out" in fails(capsys, "convert", "png", tree)
    masks = ["split", "--masks", tree / "train-semi-segmentation", "--format", "imagenet-s"]
    assert "6 classes with masks, too few for 500" in fails(capsys, *masks, *out)
    assert "--classes must be at least 1" in fails(capsys, *masks, *out, "--classes", 0)
    assert "there already" in fails(capsys, *masks, "--out", tmp_path / "classes.txt")


def test_by_default_the_processors_that_may_be_used(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 61)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {1, 5, 7}, raising=False)
    asked: list[int] = []

    def one_by_one(function: Callable[[Any], Any], items: Iterable[Any], workers: int, progress: Any) -> list[Any]:
        asked.append(workers)
        return [function(item) for item in items]

    def one_thread(workers: int) -> ThreadPoolExecutor:
        asked.append(workers)
        return ThreadPoolExecutor(1)

    monkeypatch.setattr("relevit.data.splits.in_parallel", one_by_one)
    monkeypatch.setattr("relevit.data.annotations.convert.threads", one_thread)
    call("convert", "imagenet-s", tree, "--out", tmp_path / "out")
    call("split", "--masks", tree, "--format", "imagenet-s", "--out", tmp_path / "a.csv", "--classes", 3)
    assert asked == [3, 3]


@pytest.mark.parametrize("command", ["convert", "split"])
def test_usage_shows_pictures_as_optional(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(command, "--help")
    usage, *options = capsys.readouterr().out.split("\n\n")
    assert "--out" in usage and "--images" not in usage and any("--images DIR" in part for part in options)


def test_the_help_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call("convert", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in FORMATS)
