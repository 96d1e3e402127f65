"""Evaluations by several processes, and killed ones: the same files as by one that is left alone."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from grey_model import VIEW, Grey, grey_pictures
from launching import environment, ran, torchrun
from relevit.evaluation import evaluate
from rows_on_disk import files, small_shards


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """37 images of three classes, in shards of 5."""
    small_shards(monkeypatch, 5)
    return grey_pictures(tmp_path / "data")


PROGRAM = """
import os, sys, time
import leaving
import torch
from relevit.evaluation import evaluate, shards
from grey_model import Grey, VIEW
shards.LEAST = shards.MOST = 5

class Slow(Grey):
    def forward(self, images):
        time.sleep({pause})
        return super().forward(images)

torch.set_num_threads(1)
report = evaluate({{"one": (Slow(), VIEW), "two": (Slow(0.3), VIEW)}}, {{"mine": {data!r}}}, out={out!r}, batch_size=3, device="cpu")
sys.stdout.write(f"finished {{len(report.predictions['mine']['two'])}} of {{os.environ.get('WORLD_SIZE')}}\\n")
"""


def program(tmp_path: Path, data: Path, out: Path | None, pause: float = 0.0) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(data=str(data), out=None if out is None else str(out), pause=pause))
    return path


@pytest.fixture
def expected(data: Path, tmp_path: Path) -> dict[str, bytes]:
    models = {"one": (Grey(), VIEW), "two": (Grey(0.3), VIEW)}
    evaluate(models, {"mine": data}, out=tmp_path / "whole", batch_size=3)
    return files(tmp_path / "whole" / "predictions")


@pytest.mark.slow
def test_two_processes_write_what_one_writes(data: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    for _ in range(2):  # the second time nothing is left to do
        done = ran(torchrun(program(tmp_path, data, tmp_path / "out")))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("finished 37 of 2") == done.stdout.count("left") == 2
        assert files(tmp_path / "out" / "predictions") == expected
    done = ran(torchrun(program(tmp_path, data, None)))  # without a folder the rows are gathered in memory
    assert done.returncode == 0 and done.stdout.count("finished 37 of 2") == 2, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 7, 12])
def test_a_process_killed_at_any_moment_goes_on(
    data: Path, tmp_path: Path, expected: dict[str, bytes], parts: int
) -> None:
    out = tmp_path / "out"
    script = program(tmp_path, data, out, pause=0.3)
    running = subprocess.Popen([sys.executable, str(script)], env=environment(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(out.rglob("part-*"))) < parts and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    running.kill()
    running.communicate()
    assert running.returncode == -9 and parts <= len(list(out.rglob("part-*"))) < 16
    again = subprocess.run(
        [sys.executable, str(script)], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr
    assert files(out / "predictions") == expected
