"""`relevit ...` in several processes of this machine, as a user starts it."""

import os
import socket
import subprocess
import sys


def launch(*arguments: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """torchrun --nproc_per_node PROCESSES -m relevit ARGUMENTS, on the processor."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    call = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [*map(str, arguments), "--device", "cpu"]
    return subprocess.run(
        [*call, "-m", "relevit", *words], env=environment, capture_output=True, text=True, timeout=500
    )
