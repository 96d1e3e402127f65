"""The real command line on small data, as a user would type it; in this process but for the first test."""

import inspect
import json
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

import relevit
from command_line import fails
from relevit import cli
from relevit.api.types import arguments_of
from relevit.models.loading import save_checkpoint
from relevit.training.settings import TrainingSettings

CLASSES = 5
QUICK = ["--epochs", "2", "--batch-size", "4", "--lr", "1e-3", "--no-progress", "--track", "none", "--previews", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(1)
    sizes = {"img_size": 24, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": CLASSES}
    save_checkpoint(folder, timm.create_model("vit_tiny_patch16_224", **sizes))
    return str(folder)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """images/<class>/<n>.png with a bright square, and masks/<class>/<n>.png of it."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        for number in range(3):
            image = rng.integers(0, 100, (30, 26, 3), dtype=np.uint8)
            mask = np.zeros((30, 26), np.uint8)
            y, x = rng.integers(2, 14, 2)
            mask[y : y + 11, x : x + 9] = 255
            image[mask > 0] = 120 + 30 * label
            for kind, array in (("images", image), ("masks", mask)):
                path = tmp_path / kind / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return tmp_path


def test_an_option_of_several_values_is_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["evaluate", "builtin", "--data", "nowhere/a", "--data", "nowhere/b"],
        ["evaluate", "builtin", "--data=nowhere/a", "--batch-size", "3", "--dat", "nowhere/b"],
    ):
        assert "--data is given 2 times: give all its values after one, --data A B" in fails(capsys, *command)
    assert "--exclude is given 3 times" in fails(capsys, "masks", "x", "--exclude", "a", *["--exclude", "b"] * 2)
    # together they are all read, and an option of one value may be repeated
    again = fails(capsys, "evaluate", "builtin", "--batch-size", "3", "--batch-size", "5", "--data", "nowhere/a", "b")
    assert "nowhere/a" in again and "times" not in again


def test_help_is_quick_and_errors_reach_the_shell() -> None:
    # As cli.main is called by the entry point. The time is the best of three, on whatever machine.
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        shown = subprocess.run([sys.executable, "-m", "relevit", "finetune", "--help"], capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
    assert shown.returncode == 0 and "--skip-bad" in shown.stdout and shown.stderr == ""
    assert min(seconds) < 3  # no torch; under a second on an idle machine
    wrong = subprocess.run([sys.executable, "-m", "relevit", "info", "no_such_model"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.startswith("relevit: error: ") and "no_such_model" in wrong.stderr


def test_the_number_of_classes_may_be_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["info", "vit_tiny_patch16_224", "--num-classes", "7", "--model-args", "{num_classes: 5}"])
    assert any(line.split() == ["classes", "7"] for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_option_is_documented(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for name, argument in arguments_of(cli.public_function(command)).items():
        assert argument.spelled in text and (
            argument.positional or argument.option.replace("_", "-") in argument.spelled
        )
        assert name in inspect.signature(cli.public_function(command)).parameters


def test_finetune_has_the_defaults_of_the_library() -> None:
    library = {field.name: field.default for field in fields(TrainingSettings)}
    options = inspect.signature(relevit.finetune).parameters
    assert set(options) - {"checkpoint", "num_classes", "model_args"} == {"model", "samples", "out", *library}
    assert {name: options[name].default for name in library} == library


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["finetune"], "--model"),
        (["finetune", "--model", "m", "--images", "i", "--out", "o", "--epochs", "x"], "--epochs"),
        (["finetune", "--model", "m", "--images", "i", "--out", "o", "--max-steps", "x"], "--max-steps"),
        (["finetune", "--model", "m", "--images", "i", "--out", "o", "--learning", "1"], "--learning"),
        (["finetune", "--config", "nothing.yaml"], "nothing.yaml"),
        (["evaluate", "m"], "--data"),
        (["explain", "m"], "IMAGE"),
        (["fine-tune"], "there is no command fine-tune: did you mean finetune?"),
        (["info", "vit_smal_patch16_224"], "vit_small_patch16_224"),
        (["info", "vit_tiny_patch16_224", "--input-size", "3"], "--input-size"),
        (
            ["evaluate", "m", "--data", "d", "--protocol", "papr"],
            "--protocol: must be one of standard, paper, not papr",
        ),
        (["finetune", "--epoch", "3", "--modell", "m"], "there is no option --modell: did you mean --model?"),
        (["explain", "m", "i", "--method", "gae"], "--method is now called --explainer"),
        (["finetune", "--no-tensorboard"], "--no-tensorboard is now called --track (names of trackers, or none)"),
        (
            ["finetune", "--mixed-precision", "bf16"],
            "--mixed-precision is now called --precision (float32, bf16 or fp16)",
        ),
        (
            ["evaluate", "m", "--data", "d", "--normalization", "paper"],
            "--normalization is now called --protocol (standard or",
        ),
        (["convert", "voc", "m", "--out", "o", "--mode", "paper"], "--mode is now called --protocol"),
        (["probe", "m", "--images", "i", "--out", "o", "--held-out", "1.5"], "--held-out must be from 0 to 1, not 1.5"),
        (["reproduce", "table1", "--out", "o", "--workers", "0"], "--workers must be at least 1, not 0"),
        (["audit", "builtin", "--images", "builtin", "--limit", "0"], "--limit must be at least 1, not 0"),
        (["probe", "m", "--images", "i", "--out", "o", "--device", "gpu"], "--device gpu cannot be used here"),
    ],
)
def test_errors_are_one_line(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert part in fails(capsys, *arguments)


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2 and "finetune" in capsys.readouterr().err


def test_info(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["info", model, "--input-size", "24", "24"])
    text = capsys.readouterr().out
    assert "1 prefix + 3 x 3 patches = 10" in text and "class token" in text


def test_explain(model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "maps"
    call = ["explain", model, data / "images", data / "masks" / "0" / "2.png", "--out", out, "--raw", "--target", "4"]
    cli.main([str(each) for each in call])
    assert (
        len(list(out.rglob("*.png"))) == 3 * CLASSES + 1 and (out / "1" / "2.png").exists() and (out / "2.png").exists()
    )
    assert np.load(next(out.rglob("*.npy"))).shape == (3, 3)
    text = capsys.readouterr().out
    assert "map of" in text and "2.png" in text
    assert "there already" in fails(capsys, *call)
    cli.main([*map(str, call), "--overwrite"])


def test_explain_with_wrong_input(model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "99" in fails(capsys, "explain", model, data / "images", "--out", tmp_path / "o", "--target", "99")
    assert "there is no picture" in fails(capsys, "explain", model, tmp_path / "none.jpg", "--out", tmp_path / "o")
    assert "lrp" in fails(capsys, "explain", model, data / "images", "--out", tmp_path / "o", "--explainer", "lrp")
    (data / "images" / "0" / "bad.jpg").write_bytes(b"no picture")
    assert "1 of 16 images could not be read" in fails(
        capsys, "explain", model, data / "images", "--out", tmp_path / "o"
    )
    assert len(list((tmp_path / "o").rglob("*.png"))) == 15


def test_finetune_then_everything_on_its_run(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = tmp_path / "run", tmp_path / "mine.yaml"
    config.write_text(
        yaml.safe_dump({"model": model, "images": str(data / "images"), "epochs": 7, "masks": str(data / "masks")})
    )
    call = ["finetune", "--config", str(config), "--out", str(run), *QUICK]
    cli.main(call)
    text = capsys.readouterr().out
    assert str(run / "best") in text
    rows = (run / "epochs.csv").read_text().splitlines()
    assert (run / "split.csv").exists() and (run / "last" / "model.safetensors").exists() and len(rows) >= 3

    before = (run / "best" / "model.safetensors").read_bytes()
    cli.main(call)  # finished: nothing is done again
    assert (run / "best" / "model.safetensors").read_bytes() == before
    capsys.readouterr()
    assert "lr" in fails(capsys, *call, "--lr", "3e-5")

    net = timm.create_model(f"local-dir:{run / 'best'}", pretrained=True)
    assert net.num_classes == CLASSES
    figures = tmp_path / "figures.json"
    cli.main(["evaluate", model, str(run), "--data", str(data / "images"), "--out", str(figures), "--no-progress"])
    text = capsys.readouterr().out
    assert "R@1" in text and str(figures) in text
    saved = json.loads(figures.read_text())["benchmarks"][str(data / "images")]["models"]
    assert list(saved) == [model, str(run)] and saved[model]["images"] == 15 and saved[model]["r5"] == 100.0
    assert "there already" in fails(capsys, "evaluate", model, "--data", data / "images", "--out", figures)
    cli.main(["explain", str(run), str(data / "images" / "1"), "--out", str(tmp_path / "after")])
    assert len(list((tmp_path / "after").glob("*.png"))) == 3


def test_finetune_lists_all_faults_at_once(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "images" / "0" / "0.png").write_bytes(b"no picture")
    (data / "masks" / "1" / "1.png").unlink()
    Image.new("L", (26, 30)).save(data / "masks" / "2" / "2.png")
    Image.new("L", (13, 17), 255).save(data / "masks" / "3" / "0.png")
    call = [
        "finetune",
        "--model",
        model,
        "--images",
        data / "images",
        "--masks",
        data / "masks",
        "--out",
        tmp_path / "run",
    ]
    text = fails(capsys, *call, *QUICK, lines=9)
    for part in ("0/0.png", "1/1.png", "2/2.png", "3/0.png", "--skip-bad"):
        assert part in text
    assert not (tmp_path / "run").exists()
    cli.main([str(each) for each in [*call, *QUICK, "--skip-bad"]])
    assert (tmp_path / "run" / "best").is_dir()


def test_finetune_of_a_new_head_on_classes_by_a_map(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "images" / "0").rename(data / "images" / "cat")
    (data / "masks" / "0").rename(data / "masks" / "cat")
    (tmp_path / "map.json").write_text(json.dumps({"cat": 5, **{str(i): i for i in range(1, 5)}}))
    call = [
        "finetune",
        "--model",
        model,
        "--images",
        data / "images",
        "--masks",
        data / "masks",
        "--out",
        tmp_path / "run",
    ]
    assert "cat" in fails(capsys, *call, *QUICK, lines=3)
    torch.manual_seed(0)
    cli.main(
        [
            str(each)
            for each in [*call, *QUICK, "--class-map", tmp_path / "map.json", "--num-classes", 6, "--max-steps", 2]
        ]
    )
    assert json.loads((tmp_path / "run" / "best" / "config.json").read_text())["num_classes"] == 6


def test_evaluate_names_what_it_cannot_read(model: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "images" / "0" / "0.png").write_bytes(b"no picture")
    cli.main(["evaluate", model, "--data", str(data / "images"), "--no-progress"])
    shown = capsys.readouterr()
    assert "14" in shown.out and "1 images of" in shown.err and "0.png" in shown.err
