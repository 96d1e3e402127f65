"""`relevit evaluate` as a user would type it: benchmarks below a folder, labels, architectures, protocols, set A."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from relevit import cli
from relevit.errors import UserError
from relevit.models.loading import labelled, save_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of 1000 classes, as a checkpoint and as a .pth.tar file as the authors' are."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes = {"img_size": 24, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}
    save_checkpoint(folder / "tiny", timm.create_model("vit_tiny_patch16_224", **sizes))
    plain = timm.create_model("vit_tiny_patch16_224")
    torch.save({"state_dict": plain.state_dict()}, folder / "tuned.pth.tar")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """ImageNet-R, -Sketch and a folder of that name that is none; 3 images in each of 2 classes."""
    rng = np.random.default_rng(0)
    for folder in ("data/ImageNet-R/{}", "data/sketch/{}", "mine/{}"):
        for wnid in ("n01443537", "n01484850"):
            for number in range(3):
                path = tmp_path / folder.format(wnid) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (30, 26, 3), np.uint8)).save(path)
    other = tmp_path / "data" / "imagenet-a" / "n00000001" / "0.png"
    other.parent.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(other)
    return tmp_path


def run(*arguments: object) -> None:
    cli.main(["evaluate", *map(str, arguments), "--no-progress"])


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_benchmarks_below_a_folder_with_rows(model: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = root / "out"
    (root / "a.txt").write_text("n01443537\n")
    call = [f"first={model / 'tiny'}", "--data", root / "data", "--out", out, "--set-a", root / "a.txt"]
    run(*call)
    text = capsys.readouterr().out
    for part in (
        "imagenet-r: ",
        "imagenet-sketch: ",
        "  not imagenet-a: ",
        "objectnet",
        "ECE",
        "set A",
    ):
        assert part in text
    assert str(out / "results.json") in text and "protocol: standard" in text
    saved = json.loads((out / "results.json").read_text())
    assert set(saved["benchmarks"]) == {"imagenet-r", "imagenet-sketch"} and saved["settings"]["set_a"] == ["n01443537"]
    figures = saved["benchmarks"]["imagenet-r"]["models"]["first"]
    assert figures["images"] == 6 and figures["set_a"]["images"] == figures["rest"]["images"] == 3
    rows = saved["settings"]["rows"]["imagenet-r"]["first"]
    assert rows == "predictions/imagenet-r/first" and (out / rows / "part-00000-of-00001.parquet").is_file()

    error = fails(capsys, *call, "--protocol", "paper")
    assert "protocol was 'standard', now 'paper'" in error and "view" in error
    run(
        f"first={model / 'tiny'}",
        f"second={model / 'tiny'}",
        "--data",
        root / "data",
        "--out",
        out,
        "--benchmarks",
        "imagenet-r",
    )
    saved = json.loads((out / "results.json").read_text())
    assert set(saved["benchmarks"]) == {"imagenet-r"}
    assert saved["benchmarks"]["imagenet-r"]["models"]["second"]["against"]["r1_difference"] == 0
    assert "p" in capsys.readouterr().out
    assert "there is no benchmark imagenet-v2" in fails(capsys, *call, "--benchmarks", "imagenet-v2")


def test_a_yaml_of_paths_and_class_folders(model: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "sets.yaml").write_text("imagenet-r: data/ImageNet-R\nown: mine\n")
    figures = root / "figures.json"
    run(model / "tiny", "--data", root / "sets.yaml", root / "mine", "--out", figures, "--protocol", "paper")
    text = capsys.readouterr().out
    assert "protocol: paper" in text and "found in" not in text
    saved = json.loads(figures.read_text())
    assert list(saved["benchmarks"]) == ["imagenet-r", "own", str(root / "mine")] and saved["protocol"] == "paper"
    assert saved["benchmarks"]["own"] == saved["benchmarks"][str(root / "mine")]
    again = fails(capsys, model / "tiny", "--data", root / "sets.yaml", root / "sets.yaml")
    assert "two benchmarks called imagenet-r" in again


def test_weights_of_a_file_with_their_architecture(model: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = model / "tuned.pth.tar"
    run(f"theirs=vit_tiny_patch16_224@{file}", "--data", root / "mine", "--out", root / "f.json")
    saved = json.loads((root / "f.json").read_text())
    assert saved["benchmarks"][str(root / "mine")]["models"]["theirs"]["images"] == 6
    assert "does not tell its architecture" in fails(capsys, file, "--data", root / "mine")
    assert "nothing.pth.tar" in fails(capsys, "vit_tiny_patch16_224@nothing.pth.tar", "--data", root / "mine")


def test_what_cannot_be_evaluated(model: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no" in fails(capsys, model / "tiny", "--data", root / "nowhere")
    (root / "empty").mkdir()
    assert "holds no class folders" in fails(capsys, model / "tiny", "--data", root / "empty")
    (root / "mine" / "pear").mkdir()
    Image.new("RGB", (9, 9)).save(root / "mine" / "pear" / "a.png")
    assert "pear" in fails(capsys, model / "tiny", "--data", root / "mine", "--out", root / "never")
    assert not (root / "never").exists()
    assert "zebra.txt" in fails(capsys, model / "tiny", "--data", root / "data", "--set-a", root / "zebra.txt")


def test_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    assert labelled(["a=runs/x", "runs/y", "lr=1", "b=vit@z=1.pth"]) == {
        "a": "runs/x",
        "runs/y": "runs/y",
        "lr=1": "lr=1",
        "b": "vit@z=1.pth",
    }
    assert labelled(["runs/lr=1"]) == {"runs/lr=1": "runs/lr=1"}
    with pytest.raises(UserError, match="two models are called a"):
        labelled(["a=x", "a=y"])
