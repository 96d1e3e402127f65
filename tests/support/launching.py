"""Commands in several processes, started as a user does: by torchrun, or by accelerate's launcher."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SUPPORT = Path(__file__).parent


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def torchrun(*program: object, processes: int = 2) -> list[str]:
    """The command line of torchrun for a program (its file, or -m and its module) and its arguments."""
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    return [*launch, f"--master_port={free_port()}", *map(str, program)]


def accelerate_launch(*program: object, processes: int = 2, how: str = "--multi_gpu") -> list[str]:
    """The command line of `accelerate launch`. It starts several processes with --multi_gpu alone, also where they find no
    GPU; with --cpu and without MPI it starts one."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", how, f"--num_processes={processes}"]
    options = ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={free_port()}"]
    return [*launch, *options, *map(str, program)]


def environment() -> dict[str, str]:
    """That of a program which imports what the tests import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]), "OMP_NUM_THREADS": "1"}


def ran(command: Sequence[str], seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """What a command has done."""
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=seconds)


def finished(command: Sequence[str], seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """What a command that must succeed has done."""
    done = ran(command, seconds)
    assert done.returncode == 0, done.stderr
    return done


def launch(*arguments: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """torchrun --nproc_per_node PROCESSES -m relevit ARGUMENTS, on the processor."""
    return ran(torchrun("-m", "relevit", *arguments, "--device", "cpu", processes=processes))
