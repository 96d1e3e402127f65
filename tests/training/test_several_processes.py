"""`finetune` in two processes, started as a user does, on processors: the weights of one process, also after a kill."""

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from launching import accelerate_launch, environment, finished, torchrun
from relevit.models.checkpoints import read_weights
from relevit.models.saving import save_checkpoint
from relevit.training.loop import finetune
from tiny_run import TinySamples, arguments, rows_of, tiny_model, weights_of

pytestmark = pytest.mark.slow

COMMAND = "--epochs 2 --previews 1 --track none --checkpoint-seconds 0".split()
PROGRAM = """
import sys
import leaving
import torch
from tiny_run import TinySamples, arguments, tiny_model
from relevit.training.loop import finetune

model = tiny_model(drop=0.0).double()
options = arguments(batch_size=2, accumulation=2, epochs=2, max_grad_norm=1.0, gradient_checkpointing=True)
result = finetune(model, TinySamples(13), None, **options)
torch.save(model.state_dict(), sys.argv[1])
sys.stdout.write(f"finished {result.metrics['steps']}\\n")  # in one piece, not between the other's
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder of pictures in class folders, their masks as alpha, and a model without dropout, which depends on the process."""
    folder, samples = tmp_path_factory.mktemp("given"), TinySamples(13)
    for number, label in enumerate(samples.labels):
        place = folder / "images" / str(label) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        alpha = (255 * samples.masks[number]).astype(np.uint8)
        Image.fromarray(np.dstack([samples.images[number], alpha])).save(place)
    save_checkpoint(folder / "model", tiny_model(drop=0.0))
    return folder


def command(given: Path, out: Path, *options: object) -> list[str]:
    """`relevit finetune` as it is typed behind a launcher, with groups of 2 samples in each micro-batch."""
    paths = ["--model", given / "model", "--images", given / "images", "--out", out]
    return ["-m", "relevit", "finetune", *map(str, [*paths, *COMMAND, *options])]


def in_this_process(given: Path, out: Path, batch_size: int, **changed: object) -> dict[str, torch.Tensor]:
    """The weights of the same run by one process."""
    usual = {"epochs": 2, "previews": 1, "track": (), "progress": False, "batch_size": batch_size}
    finetune(given / "model", given / "images", out, **usual, **changed)
    return read_weights(out / "best" / "model.safetensors")


def check_close(run: Path, expected: dict[str, torch.Tensor]) -> None:
    """Single precision: sums in another order. The biases of keys have no gradient but rounding, which AdamW blows up."""
    for name, tensor in read_weights(run / "best" / "model.safetensors").items():
        if not name.endswith("qkv.bias"):
            torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=5e-6)


def steps_of(run: Path) -> list[list[float]]:
    return [[float(row[name]) for name in row if name != "seconds"] for row in rows_of(run / "steps.csv")]


def test_the_command_under_torchrun_trains_as_one_process(given, tmp_path):
    """Groups of 8, the last of an epoch shorter, of which the second process has but a part."""
    launched = command(given, tmp_path / "two", "--lr", 1e-3, "--batch-size", 2, "--accumulation", 2)
    for _ in range(2):  # the second call returns the finished run's result
        finished(torchrun(*launched))
    assert json.loads((tmp_path / "two" / "config.json").read_text())["processes"] == 2
    check_close(tmp_path / "two", in_this_process(given, tmp_path / "one", 8, lr=1e-3))
    assert len(steps_of(tmp_path / "two")) == 4
    for two, one in zip(steps_of(tmp_path / "two"), steps_of(tmp_path / "one"), strict=True):
        assert two == pytest.approx(one, rel=1e-2, abs=1e-4)


LAUNCHERS = pytest.mark.parametrize("launcher", [torchrun, accelerate_launch])


@LAUNCHERS
def test_float64_weights_are_those_of_one_process(launcher, tmp_path):
    """To 1e-10, every weight, and each process leaves its group; without dropout, which each draws for itself."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = finished(launcher(tmp_path / "program.py", tmp_path / "two.pt"))
    assert done.stdout.count("finished 4") == done.stdout.count("left") == 2
    model = tiny_model(drop=0.0).double()
    finetune(model, TinySamples(13), None, **arguments(batch_size=8, epochs=2, max_grad_norm=1.0))
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-10)


@LAUNCHERS
def test_killed_the_same_command_goes_on(launcher, given, tmp_path):
    """Killed after some steps, launcher and all: the weights are those of an undisturbed run, to the bit."""
    options = ("--lr", 1e-3, "--batch-size", 1, "--epochs", 4)
    finished(launcher(*command(given, tmp_path / "whole", *options)))
    run = tmp_path / "run"
    launched = subprocess.Popen(launcher(*command(given, run, *options)), env=environment())
    end = time.monotonic() + 120
    while time.monotonic() < end and not ((run / "steps.csv").exists() and len(steps_of(run)) > 5):
        time.sleep(0.02)
    tree = [*psutil.Process(launched.pid).children(recursive=True), psutil.Process(launched.pid)]
    for process in tree:
        process.kill()
    launched.wait()
    psutil.wait_procs(tree)
    assert (run / "state" / "state.pt").exists() and not (run / "result.json").exists()
    finished(launcher(*command(given, run, *options)))
    assert json.loads((run / "config.json").read_text())["processes"] == 2
    assert weights_of(run) == weights_of(tmp_path / "whole")
    assert steps_of(run) == steps_of(tmp_path / "whole")


def test_the_rule_for_the_learning_rate_under_torchrun(given, tmp_path):
    launched = command(given, tmp_path / "two", "--lr", "auto", "--rates", "[1e-4,1e-3]", "--batch-size", 4)
    finished(torchrun(*launched))
    expected = in_this_process(given, tmp_path / "one", 8, lr="auto", rates=[1e-4, 1e-3])
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert two["lr"] == one["lr"] and len(two["trials"]) == 2
    check_close(tmp_path / "two", expected)


def test_accelerate_launch_on_processors(given, tmp_path):
    """Without MPI, accelerate starts one process there."""
    launched = command(given, tmp_path / "run", "--lr", 1e-3, "--batch-size", 4)
    finished(accelerate_launch(*launched, how="--cpu"))
    expected = in_this_process(given, tmp_path / "one", 4, lr=1e-3)
    assert all(
        torch.equal(tensor, expected[name])
        for name, tensor in read_weights(tmp_path / "run" / "best" / "model.safetensors").items()
    )
