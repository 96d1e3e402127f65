"""`relevit compose` and `relevit evaluate` on what it made, as a user would type them."""

from __future__ import annotations

import csv
import json
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from command_line import call, fails
from relevit.api.compose import compose
from relevit.data.composition.shift_tests import SETS, Settings
from relevit.models.loading import save_checkpoint

QUICK = ["--size", "24", "--positions", "0.3", "0.6", "--areas", "0.1", "0.5", "--angles", "0", "45"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """images/<class>/<n>.png with masks beside, cutouts/<class>/<n>.png with alpha, scenes/<n>.jpg."""
    rng = np.random.default_rng(0)
    for label in range(3):
        for number in range(2):
            image = rng.integers(0, 90, (30, 26, 4), dtype=np.uint8)
            image[..., 3] = 0
            image[6:19, 5:14] = 90 + 40 * label, 200, 20, 255
            for kind, array in (("cutouts", image), ("images", image[..., :3]), ("masks", image[..., 3])):
                path = tmp_path / kind / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.ascontiguousarray(array)).save(path)
    (tmp_path / "scenes").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (20, 50, 3), dtype=np.uint8)).save(tmp_path / "scenes" / f"{number}.jpg")
    return tmp_path


def test_defaults_are_the_library_s() -> None:
    shown = {name: signature(compose).parameters[name].default for name in ("positions", "areas", "angles", "area")}
    assert all(np.array_equal(value, getattr(Settings(), name)) for name, value in shown.items())
    assert all(name in (compose.__doc__ or "") for name in SETS)


def test_cut_outs_on_scenes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["compose", "--images", data / "cutouts", "--backgrounds", data / "scenes", "--out", data / "out", *QUICK]
    call(*given)
    text = capsys.readouterr().out
    assert "54 pictures in all" in text and "relevit evaluate MODEL --data" in text  # 6 x (4 + 2 + 2 + 1)
    rows = list(csv.DictReader((data / "out" / "manifest.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 54 and list(dict.fromkeys(row["set"] for row in rows)) == [
        "location",
        "size",
        "rotation",
        "only_fg",
    ]
    assert all(
        (data / "out" / row["set"] / kind / row["file"]).exists() for row in rows for kind in ("images", "masks")
    )
    (data / "out" / "size" / "masks" / rows[24]["file"]).unlink()
    call(*given)
    assert "54 pictures in all; 53 are there already" in capsys.readouterr().out
    assert "seed: 0 in the folder, 5 now" in fails(capsys, *given, "--seed", 5)


def test_whole_pictures_then_evaluate(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    out = Path("out")
    call(
        "compose",
        "--images",
        data / "images",
        "--masks",
        data / "masks",
        "--out",
        out,
        "--size",
        24,
        "--limit",
        5,
        "--format",
        "jpg",
    )
    assert "30 pictures in all" in capsys.readouterr().out
    assert len(list((out / "mixed_rand" / "images").rglob("*.jpg"))) == 5
    torch.manual_seed(1)
    sizes = {"img_size": 24, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 3}
    save_checkpoint(data / "tiny", timm.create_model("vit_tiny_patch16_224", **sizes))
    figures = data / "figures.json"
    call("evaluate", "tiny", "--data", out, "--out", figures, "--no-progress")
    text = capsys.readouterr().out
    assert "background gap" in text and "5 objects" in text and "mixed_next" in text
    saved = json.loads(figures.read_text())
    assert set(saved["benchmarks"]) == {
        f"{out}/{name}" for name in ("original", "only_fg", "only_bg", "mixed_same", "mixed_rand", "mixed_next")
    }
    gap, models = saved["background_gap"][str(out)]["tiny"], "tiny"
    r1 = {name: saved["benchmarks"][f"{out}/{name}"]["models"][models]["r1"] for name in ("mixed_same", "mixed_rand")}
    assert gap["objects"] == 5 and gap["background_gap"] == pytest.approx(r1["mixed_same"] - r1["mixed_rand"])
    assert gap["interval"][0] <= gap["background_gap"] <= gap["interval"][1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--out", "out", "--sets", "mixed_rand"], "mixed_rand needs whole pictures"),
        (["--out", "out", "--sets", "size"], "--backgrounds"),
        (["--out", "out", "--sets", "rotations"], "rotations"),
        (["--out", "out", "--areas", "0.5", "1.5"], "--areas must be from 0 to 1, not 1.5"),
        (["--out", "out", "--areas", "large"], "--areas"),
        (["--out", "out", "--format", "gif"], "--format"),
        (["--out", "masks"], "not empty"),
        (["--out", "cutouts/new"], "lies in the folder of images cutouts"),
        (["--out", "masks/new", "--masks", "masks"], "lies in the folder of masks masks"),
        (["--out", "scenes/new", "--backgrounds", "scenes"], "lies in the folder of backgrounds scenes"),
        ([], "--out is required"),
    ],
)
def test_wrong_input_is_one_line(
    data: Path, arguments: list[str], part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    assert part in fails(capsys, "compose", "--images", "cutouts", *arguments)
    assert not (data / "out").exists()


def test_faults_are_listed_or_left_out(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "cutouts" / "1" / "0.png").write_bytes(b"no picture")
    (data / "scenes" / "2.jpg").write_bytes(b"no picture")
    given = ["compose", "--images", data / "cutouts", "--backgrounds", data / "scenes", "--out", data / "out", *QUICK]
    text = fails(capsys, *given, lines=4)
    assert "2 faults" in text and "1/0.png" in text and "2.jpg" in text and not (data / "out").exists()
    call(*given, "--skip-bad")
    shown = capsys.readouterr()
    assert "45 pictures in all" in shown.out and shown.err.count("left out: unreadable image") == 2
