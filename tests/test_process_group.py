"""Programs leave torch's process group before the interpreter ends; and the device that is taken by default."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from relevit.processes import pick_device

PROGRAM = """
import atexit
import torch.distributed as group

atexit.register(lambda: print("initialised" if group.is_initialized() else "left"))  # runs after what is registered below
group.init_process_group("gloo", init_method="file://{file}", rank=0, world_size=1)
{before}
"""


@pytest.mark.parametrize(
    ("before", "state"),
    [
        ("from relevit.processes import leave_at_exit; leave_at_exit(); leave_at_exit()", "left"),
        ("from relevit.processes import leave_at_exit; leave_at_exit(); group.destroy_process_group()", "left"),
        ("", "initialised"),
    ],
)
@pytest.mark.quick_where(lambda before: "destroy" in before)
def test_the_group_is_left(tmp_path: Path, before: str, state: str) -> None:
    program = PROGRAM.format(file=tmp_path / "store", before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, state + "\n", "")


@pytest.mark.parametrize(("there", "taken"), [("cuda", "cuda"), ("mps", "mps"), ("xpu", "xpu"), (None, "cpu")])
def test_the_accelerator_is_taken(there: str | None, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: there is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: there and torch.device(there))
    assert pick_device(None) == taken and pick_device("cpu") == "cpu"
