"""`relevit doctor` as a user types it: exit codes, tables, the JSON file, offline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import exit_code
from odd_files import save
from relevit.models.families import features
from relevit.models.loading import load, save_checkpoint
from tiny_run import tiny_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((37, 43), np.uint8)
        mask[5 + number : 31 + number, 7:31] = 255
        save(tmp_path / f"images/{number % 2}/{number}.png", rng.integers(0, 256, (37, 43, 3), np.uint8))
        save(tmp_path / f"masks/{number % 2}/{number}.png", mask)
    save_checkpoint(tmp_path / "tiny", tiny_model())
    return tmp_path


def run(root: Path, *more: object, model: str | None = None) -> int:
    """The exit code."""
    given = ["--images", root / "images", "--masks", root / "masks", "--model", model or root / "tiny"]
    return exit_code("doctor", *given, *more)


def test_a_good_set_exits_with_zero(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root) == 0
    text = capsys.readouterr()
    assert "Nothing would stop a run; no warnings." in text.out and text.err == ""
    assert "1 prefix + 4 x 4 patches = 17" in text.out and "6 with a mask, 6 of them good" in text.out
    assert "Faults" not in text.out and "Warnings" not in text.out and "Notes" not in text.out


def test_warnings_alone_exit_with_zero(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(root / "masks/0/0.png", np.full((37, 43), 255, np.uint8))
    assert run(root) == 0
    text = capsys.readouterr().out
    assert "mask covers nearly the whole image" in text and "100.0%" in text
    assert "Nothing would stop a run; 1 kind of warnings." in text


def test_faults_exit_with_one_and_show_examples_and_remedy(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a [b]", "c", "d", "e"):  # brackets are no markup
        save(root / f"images/0/{name}.png", np.full((37, 43, 3), ord(name[0]), np.uint8))
    assert run(root, "--out", root / "found.json") == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "missing mask" in text and "a [b].png" in text and "... and 1 more" in text
    assert "add a PNG of the same name to the folder of masks" in text
    assert "4 faults would stop a run (finetune --skip-bad leaves bad samples out); no warnings." in text
    report = json.loads((root / "found.json").read_text(encoding="utf-8"))
    assert report["stops"] and report["data"]["stops"] and not report["model"]["stops"]
    (finding,) = report["data"]["findings"]
    assert finding["count"] == 4 and [Path(where["file"]).name for where in finding["where"]][3] == "e.png"
    assert report["model"]["facts"]["supported"] == "yes"


def test_the_json_file_is_never_overwritten(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "found.json").write_text("mine")
    assert run(root, "--out", root / "found.json") == 2
    error = capsys.readouterr().err
    assert error.startswith("relevit: error: ") and "there already" in error and error.count("\n") == 1
    assert (root / "found.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--images", "nowhere"], "nowhere"),
        (["--masks", "nowhere"], "nowhere"),
        (["--model", "vit_smal_patch16_224"], "vit_small_patch16_224"),
        (["--class-map", "nowhere.json"], "nowhere.json"),
        (["--checkpoint", "nowhere.pth", "--model", "vit_tiny_patch16_224"], "nowhere.pth"),
        (["--protocol", "imagenet"], "--protocol"),
    ],
)
def test_user_errors_exit_with_two(more: list[str], part: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("relevit: error: ") and part in error and error.count("\n") == 1


def test_an_unsupported_model_exits_with_one(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, model="resnet18.a1_in1k") == 1
    text = capsys.readouterr().out
    assert "unsupported model" in text and "no global attention maps" in " ".join(text.split())


def test_a_timm_model_needs_no_network_tells_its_normalisation(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was made"))
    assert run(root, "--protocol", "paper", model="deit_tiny_patch16_224.fb_in1k") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "normalisation differs" in text and "0.485 0.456 0.406" in text and "image much smaller" in text
    assert run(root, model="deit_tiny_patch16_224.fb_in1k") == 0
    text = capsys.readouterr().out
    assert "normalisation differs" not in text and "answers" not in text  # its weights are not there to be asked


def test_weights_of_ones_own_are_read(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "tiny" / "model.safetensors").write_bytes(b"cut short")
    assert run(root) == 2 and "model.safetensors" in capsys.readouterr().err
    torch.save(tiny_model(embed_dim=8).state_dict(), root / "other.pth")
    sizes = "{img_size: 16, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2, num_classes: 5}"
    call = ["--checkpoint", root / "other.pth", "--model-args", sizes]
    assert run(root, *call, model="vit_tiny_patch16_224") == 2 and "other.pth" in capsys.readouterr().err
    torch.save(tiny_model().state_dict(), root / "other.pth")
    assert run(root, *call, model="vit_tiny_patch16_224") == 0
    assert "head is new" not in capsys.readouterr().out
    save_checkpoint(root / "run" / "best", tiny_model())
    assert run(root, "--num-classes", 3, model=str(root / "run")) == 0
    assert "the head is new and untrained" in capsys.readouterr().out


def test_untrained_and_trained_heads_by_their_answers(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same model with its fresh head, and with one that was fitted to its features."""
    rng, pictures = np.random.default_rng(1), []
    for number in range(60):
        top, left = number % 6, number // 6
        mask = np.zeros((37, 43), np.uint8)
        mask[5 + top : 31 + top, 7 + left : 31 + left] = 255
        pictures.append((40 * (number % 5) + rng.integers(0, 40, (37, 43, 3))).astype(np.uint8))
        save(root / f"images/{number % 5}/{number}.png", pictures[-1])
        save(root / f"masks/{number % 5}/{number}.png", mask)
    assert run(root) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "the head looks untrained" in text and "1 kind of warnings" in text
    assert "of 64 images (chance 20.00%)" in text and "no better than chance" in text

    model, view = load(root / "tiny")
    with torch.no_grad():
        seen = features(model, torch.stack([view(picture) for picture in pictures]))
        wanted = 9 * torch.eye(5)[torch.arange(60) % 5]
        model.head.weight.copy_(torch.linalg.lstsq(seen, wanted).solution.T)
        model.head.bias.zero_()
    torch.save(model.state_dict(), root / "mine.pth")
    sizes = "{img_size: 16, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2, num_classes: 5}"
    assert run(root, "--model-args", sizes, model=f"vit_tiny_patch16_224@{root / 'mine.pth'}") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "better than chance" in text and "no better than chance" not in text and "no warnings" in text
