"""`relevit masks` as a user would type it."""

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import relevit.masking.make as automatic
from command_line import call, fails
from relevit.images import read_mask
from relevit.models.loading import save_checkpoint
from tiny_masks import colour_features, tree
from tiny_run import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(folder, tiny_model())
    return str(folder)


QUICK = ["--workers", "0", "--batch-size", "2"]


def test_masks_of_a_tree(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(automatic, "patch_features", colour_features)
    images = tree(tmp_path / "images")
    (images / "0" / "broken.jpg").write_bytes(b"")
    call(
        "masks", images, "--out", tmp_path / "masks", "--model", model, "--min-pixels", "100", "--device", "cpu", *QUICK
    )
    shown = capsys.readouterr()
    assert "1 images have no mask" in shown.out and "--skip-bad" in shown.out
    assert "object" in shown.out and "7 images, 7 done now" in shown.out and "images/s" in shown.out
    assert "contact_sheet.html" in shown.out and "skipped 0/broken.jpg: " in shown.err
    assert (read_mask(tmp_path / "masks" / "1" / "2.png") > 0).sum() == 144

    (tmp_path / "excluded.txt").write_text("1/2.png\n")
    call("masks", images, "--out", tmp_path / "masks", "--model", model, "--exclude", tmp_path / "excluded.txt", *QUICK)
    shown = capsys.readouterr()
    assert "0 done now" in shown.out and "too small" in shown.out and "excluded" in shown.out


def test_errors_are_one_line(model, tmp_path, capsys):
    images = tree(tmp_path / "images", classes=1, each=1)
    out = ["--out", tmp_path / "masks"]
    assert "nothing" in fails(capsys, "masks", tmp_path / "nothing", *out, "--model", model, *QUICK)
    assert "vit_base_patch16_224" in fails(capsys, "masks", images, *out, "--model", "vit_bas_patch16_224", *QUICK)
    assert "--kind" in fails(capsys, "masks", images, *out, "--model", model, "--kind", "keys", *QUICK)
    assert "--out" in fails(capsys, "masks", images, *QUICK)
    assert "block" in fails(capsys, "masks", images, *out, "--model", model, "--block", "7", *QUICK)
    assert "no global attention maps" in fails(capsys, "masks", images, *out, "--model", convolutions(tmp_path), *QUICK)
    assert not (tmp_path / "masks").exists()


def convolutions(tmp_path):
    folder = tmp_path / "convolutions"
    save_checkpoint(folder, timm.create_model("resnet10t", num_classes=2))
    return folder


@pytest.mark.slow
def test_real_features_workers_and_shapes_of_any_kind(tmp_path):
    """In a process of its own, with two workers; untrained weights: whatever the masks are, they have the right form."""
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "model", timm.create_model("vit_tiny_patch16_224", depth=2))
    rng = np.random.default_rng(0)
    sizes = [(97, 61), (61, 97), (224, 224), (5, 7), (300, 40)]
    (tmp_path / "images" / "a").mkdir(parents=True)
    for number, (width, height) in enumerate(sizes):
        values = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(values).save(tmp_path / "images" / "a" / f"{number}.png")
    command = [sys.executable, "-m", "relevit", "masks", tmp_path / "images", "--out", tmp_path / "masks"]
    command += ["--model", tmp_path / "model", "--workers", "2", "--min-pixels", "0"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "5 images, 5 done now" in done.stdout
    for path in (tmp_path / "masks" / "a").glob("*.png"):
        mask = read_mask(path)
        assert (mask.shape[1], mask.shape[0]) == sizes[int(path.stem)]
        assert set(np.unique(mask)) <= {0.0, 1.0} and mask.any()


def test_a_local_file_of_weights(tmp_path, monkeypatch, capsys):
    """The file's weights, not those of the model's initialisation, make the features; weights that do not fit are refused."""
    torch.manual_seed(3)
    model = timm.create_model("vit_tiny_patch16_224")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    seen = []

    def features(net, images, **options):
        seen.append(net.blocks[0].attn.qkv.weight.detach().clone())
        return colour_features(net, images, **options)

    monkeypatch.setattr(automatic, "patch_features", features)
    images = tree(tmp_path / "images", classes=1, each=1)
    given = ["masks", images, "--checkpoint", tmp_path / "weights.pth", "--device", "cpu"]
    call(*given, "--out", tmp_path / "masks", "--model", "vit_tiny_patch16_224", *QUICK)
    assert seen and all(torch.equal(each, model.blocks[0].attn.qkv.weight) for each in seen)
    capsys.readouterr()
    assert "vit_small_patch16_224" in fails(
        capsys, *given, "--out", tmp_path / "more", "--model", "vit_small_patch16_224"
    )
