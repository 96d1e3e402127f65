"""linear_probe.py: a head on frozen features."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

import relevit.evaluation.frozen.linear_probe as module
from relevit import UserError, load
from relevit.api.probe import probe
from relevit.cli import main
from relevit.evaluation.frozen import features
from relevit.evaluation.frozen.linear_probe import head_of, held_out_images, train_linear_probe
from rows_on_disk import small_shards, stop_after

CLASSES = ("ant", "bee", "cow")
NAME = "vit_tiny_patch16_224"
ARGUMENTS = {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders whose pictures differ by colour, 7 a class."""
    root = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir()
        for index in range(7):
            picture = rng.integers(0, 90, (37, 41, 3), dtype=np.uint8)
            picture[..., number] += 120
            Image.fromarray(picture).save(root / name / f"{index}.png")
    return root


def backbone(seed: int = 0) -> tuple[torch.nn.Module, object]:
    torch.manual_seed(seed)
    net = timm.create_model(NAME, num_classes=0, **ARGUMENTS).eval()
    from relevit.models.loading import data_config
    from relevit.models.view import evaluation_view

    return net, evaluation_view(data_config(net))


def test_checkpoint_names_the_folders_and_keeps_the_backbone(folder: Path, tmp_path: Path) -> None:
    net, view = backbone()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    figures = train_linear_probe(net, view, folder, tmp_path / "head", batch_size=5)
    assert figures.images == 21 and figures.classes == 3 and figures.training_accuracy == 100.0
    assert sorted(figures.held_out) == list(module.STRENGTHS) and figures.strength in figures.held_out
    read, _ = load(tmp_path / "head")
    for name, value in before.items():
        assert torch.equal(read.state_dict()[name], value), name
    assert read.num_classes == 3 and sorted(p.name for p in (tmp_path / "head").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((tmp_path / "head" / "config.json").read_text())
    assert config["relevit"]["linear_probe"]["strength"] == figures.strength
    from relevit.data.classes import class_index

    assert class_index(CLASSES, read) == {"ant": 0, "bee": 1, "cow": 2}


def test_logits_are_the_regressions_on_standardised_features(folder: Path, tmp_path: Path) -> None:
    net, view = backbone(1)
    strength = 0.1
    train_linear_probe(net, view, folder, tmp_path / "head", strengths=[strength])
    files = sorted(folder.rglob("*.png"))
    images = torch.stack([view(Image.open(file)) for file in files])
    with torch.inference_mode():
        features = net.forward_head(net.forward_features(images), pre_logits=True).numpy()
        logits = net(images).double().numpy()
    labels = np.repeat(np.arange(3), 7)
    scaled = (features - features.mean(0)) / features.std(0)
    fitted = LogisticRegression(C=strength, max_iter=500, tol=1e-5).fit(scaled, labels)
    expected = fitted.decision_function(scaled)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.1  # not all zeros


def test_two_classes_keep_the_difference_of_logits() -> None:
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(23, 5)), np.arange(23) % 2
    mean, std = features.mean(0), features.std(0)
    fitted = LogisticRegression(C=0.7).fit((features - mean) / std, labels)
    weight, bias = head_of(fitted, mean, std)
    logits = features @ weight.T + bias
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], fitted.decision_function((features - mean) / std))


def test_held_out_images_are_of_every_class_and_never_all() -> None:
    labels = np.repeat([0, 1, 2, 3], [1, 2, 3, 11])
    apart = held_out_images(labels, 0.2, seed=5)
    assert [int(apart[labels == label].sum()) for label in range(4)] == [0, 1, 1, 2]
    assert (apart == held_out_images(labels, 0.2, seed=5)).all()
    assert any((apart != held_out_images(labels, 0.2, seed=seed)).any() for seed in range(6, 12))
    assert [int(held_out_images(labels, 0.99, 0)[labels == label].sum()) for label in range(4)] == [0, 1, 2, 10]


def test_goes_on_where_it_was_stopped_with_the_same_result(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch, 4)
    net, view = backbone()
    train_linear_probe(net, view, folder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            train_linear_probe(backbone()[0], view, folder, tmp_path / "parts")
    assert len(list((tmp_path / "parts").rglob("part-*"))) == 3
    with pytest.raises(UserError, match="weights"):
        train_linear_probe(backbone(9)[0], view, folder, tmp_path / "parts")
    net, _ = backbone()
    counted = []
    original = features.before_head
    monkeypatch.setattr(
        features,
        "before_head",
        lambda model, images, names: counted.append(len(images)) or original(model, images, names),
    )
    train_linear_probe(net, view, folder, tmp_path / "parts")
    assert sum(counted) == 21 - 12
    whole, parts = (load(tmp_path / name)[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_unreadable_images_are_named_and_left_out(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "classes"
    shutil.copytree(folder, copy)
    (copy / "bee" / "3.png").write_bytes(b"no picture")
    figures = train_linear_probe(*backbone(), copy, tmp_path / "head", strengths=[1.0])
    assert figures.images == 20 and len(figures.unreadable) == 1 and "3.png" in figures.unreadable[0]
    for file in (copy / "bee").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="no image of bee"):
        train_linear_probe(*backbone(), copy, tmp_path / "other")


def test_user_errors(folder: Path, tmp_path: Path) -> None:
    net, view = backbone()
    with pytest.raises(UserError, match="strengths"):
        train_linear_probe(net, view, folder, tmp_path / "a", strengths=[0.0])
    with pytest.raises(UserError, match="held_out"):
        train_linear_probe(net, view, folder, tmp_path / "a", held_out=1.0)
    (tmp_path / "one" / "ant").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "one" / "ant" / "1.png")
    with pytest.raises(UserError, match="two classes"):
        train_linear_probe(net, view, tmp_path / "one", tmp_path / "a")
    train_linear_probe(net, view, folder, tmp_path / "a", strengths=[1.0])
    with pytest.raises(UserError, match="already"):
        train_linear_probe(net, view, folder, tmp_path / "a")


@pytest.mark.parametrize("inner", ["images", ".hidden"])
def test_a_folder_of_other_files_is_never_replaced(folder: Path, tmp_path: Path, inner: str) -> None:
    model, view = backbone()
    (tmp_path / "out" / inner).mkdir(parents=True)
    (tmp_path / "out" / inner / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        train_linear_probe(model, view, folder, tmp_path / "out")
    assert (tmp_path / "out" / inner / "mine.txt").read_text() == "mine"


def test_a_distilled_model_gets_both_heads(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("deit_tiny_distilled_patch16_224", **ARGUMENTS).eval()
    from relevit.models.loading import data_config
    from relevit.models.view import evaluation_view

    figures = train_linear_probe(net, evaluation_view(data_config(net)), folder, tmp_path / "head", strengths=[1.0])
    assert figures.training_accuracy == 100.0
    read, _ = load(tmp_path / "head")
    assert torch.equal(read.head.weight, read.head_dist.weight) and read.head.weight.shape == (3, 24)


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from relevit import save_checkpoint

    assert inspect.signature(probe).parameters["strengths"].default == tuple(module.STRENGTHS)
    save_checkpoint(tmp_path / "backbone", backbone()[0])
    main(
        [
            "probe",
            str(tmp_path / "backbone"),
            "--images",
            str(folder),
            "--out",
            str(tmp_path / "head"),
            "--strengths",
            "1.0",
            "10.0",
        ]
    )
    printed = capsys.readouterr().out
    assert "21 images of 3 classes" in printed and "<- chosen" in printed
    main(["evaluate", str(tmp_path / "head"), "--data", str(folder)])
    assert "100.0" in capsys.readouterr().out
