"""Two processes, started by the launcher that `accelerate launch` uses, too, train as one does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from relevit.models.loading import load
from relevit.training.loop import finetune
from tiny_run import TinySamples, arguments, tiny_model

SUPPORT = Path(__file__).parents[0] / "support"

PROGRAM = """
import sys
import leaving
from accelerate import PartialState
from tiny_run import TinySamples, arguments, tiny_model
from relevit.training.loop import finetune

PartialState(cpu=True)
changed = arguments(batch_size=2, accumulation=2, epochs=2)
result = finetune(tiny_model(drop=0.0), TinySamples(13), sys.argv[1], **changed)
sys.stdout.write(f"finished {result.metrics['steps']}\\n")  # in one piece, not between the other's
"""


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """13 samples in groups of 8: the last group is 5, of which the second process has but one part."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={_free_port()}"]
    launch += [str(tmp_path / "program.py"), str(tmp_path / "two")]
    for _ in range(2):  # the second call returns the finished run's result
        done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("finished 4") == done.stdout.count("left") == 2
    one = finetune(tiny_model(drop=0.0), TinySamples(13), tmp_path / "one", **arguments(batch_size=8, epochs=2))
    two, _ = load(tmp_path / "two")
    for name, tensor in one.model.state_dict().items():
        if not name.endswith("qkv.bias"):  # the biases of keys have no gradient but rounding
            torch.testing.assert_close(two.state_dict()[name], tensor, rtol=1e-3, atol=5e-6)
    steps = [(tmp_path / name / "steps.csv").read_text().splitlines() for name in ("one", "two")]
    assert len(steps[0]) == len(steps[1]) == 5
    for first, second in zip(steps[0][1:], steps[1][1:], strict=True):
        assert [float(x) for x in first.split(",")[:-1]] == pytest.approx(
            [float(x) for x in second.split(",")[:-1]], rel=1e-2, abs=1e-4
        )
