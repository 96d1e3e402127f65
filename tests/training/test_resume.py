"""A run that is killed with SIGKILL, at any moment, and started again ends as if nothing had happened."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny_run

SUPPORT = Path(__file__).parents[1] / "support"

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["relevit.training.loop"])


def in_process(out: Path, kill_at: int | None = None, **changed: object) -> int:
    """A run in a process of its own; its exit code."""
    process = SERVER.Process(target=tiny_run.run, args=(str(out), kill_at), kwargs=changed)
    process.start()
    process.join(240)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights and logs of a run that nobody disturbed, and its number of events."""
    out = tmp_path_factory.mktemp("whole") / "run"
    events, _ = tiny_run.run(str(out))
    return out, events


def without_seconds(file: Path) -> list[dict[str, str]]:
    return [{key: row[key] for key in row if key != "seconds"} for row in tiny_run.rows_of(file)]


def check_same(out: Path, whole: Path) -> None:
    assert tiny_run.weights_of(out) == tiny_run.weights_of(whole)
    for name in ("steps.csv", "epochs.csv"):
        assert without_seconds(out / name) == without_seconds(whole / name)
    for inner in (".", "previews"):
        assert sorted(p.name for p in (out / inner).iterdir()) == sorted(p.name for p in (whole / inner).iterdir())


def test_runs_are_repeatable_and_drop_out(uninterrupted, tmp_path):
    """The reference itself is reproducible, in another process, and depends on dropout."""
    whole, _ = uninterrupted
    assert in_process(tmp_path / "again") == 0
    check_same(tmp_path / "again", whole)


@pytest.mark.parametrize("share", [0.0, 0.04, 0.37, 0.71, 0.98])
@pytest.mark.quick_where(lambda share: share == 0.37)
def test_killed_once(share, uninterrupted, tmp_path):
    whole, events = uninterrupted
    assert in_process(tmp_path / "run", kill_at=round(share * (events - 1))) == -signal.SIGKILL
    assert in_process(tmp_path / "run") == 0
    check_same(tmp_path / "run", whole)


@pytest.mark.parametrize("max_steps", [None, 6])
@pytest.mark.slow
def test_killed_between_the_last_step_and_the_end_of_its_epoch(max_steps, tmp_path):
    """The state of the last step is written; checkpoints and logs of the epoch are not."""
    _, last_step = tiny_run.run(str(tmp_path / "whole"), max_steps=max_steps)
    after_its_state = last_step + 4  # the step, two flushes and a renaming
    assert in_process(tmp_path / "run", kill_at=after_its_state, max_steps=max_steps) == -signal.SIGKILL
    assert not (tmp_path / "run" / "result.json").exists()
    assert in_process(tmp_path / "run", max_steps=max_steps) == 0
    check_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(8))
def test_killed_at_every_event(first, uninterrupted, tmp_path):
    """Each optimiser step, flush and renaming once, in the middle of checkpoints and of states too."""
    whole, events = uninterrupted
    for event in range(first, events, 8):
        out = tmp_path / str(event)
        assert in_process(out, kill_at=event) == -signal.SIGKILL
        assert in_process(out) == 0
        check_same(out, whole)


@pytest.mark.slow
def test_killed_again_and_again(uninterrupted, tmp_path):
    """Killed after every few events of each new start, until it is through."""
    whole, _ = uninterrupted
    for _ in range(200):
        if in_process(tmp_path / "run", kill_at=27) == 0:
            break
    check_same(tmp_path / "run", whole)


@pytest.mark.slow
def test_killed_from_outside(uninterrupted, tmp_path):
    """A separate program, killed by the clock at random moments."""
    whole, _ = uninterrupted
    out, rng, killed = tmp_path / "run", random.Random(0), 0
    code = "import tiny_run, relevit.training.loop; print('ready', flush=True); "
    code += f"tiny_run.run({str(out)!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    for _ in range(60):
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.0, 1.0 + 0.1 * killed))  # longer and longer, so that it gets through in the end
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        assert process.returncode in (0, -signal.SIGKILL)
        if process.returncode == 0:
            break
    assert killed > 0
    assert (out / "result.json").exists()
    check_same(out, whole)
