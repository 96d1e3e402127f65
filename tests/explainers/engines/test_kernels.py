"""The kernels of Triton on a processor, interpreted: in a process of their own, since that is decided when triton is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
pytestmark = pytest.mark.slow

CASES = {
    # dim of a head, programs wanted, rows, numbers, fault
    "32": (32, 1, (0, 19), "float32", ""),
    "64, some rows": (64, 100, (3, 8), "float32", ""),
    "80, keys split": (80, 100, (0, 19), "float32", ""),
    "128, some rows": (128, 1, (3, 8), "float32", ""),
    "half precision": (16, 6, (0, 19), "float16", ""),
    "log-sum-exp off": (16, 6, (0, 19), "float32", "lse"),
    "a split forgotten": (16, 100, (0, 19), "float32", "split"),
}
PROGRAM = """
import json, sys
import torch
import test_engines as sizes
from relevit.explainers.engines import cuda, kernels, map
kernels.blocks = lambda query, kernel: (16, 16, 4, 1)
sizes.BATCH, sizes.HEADS, sizes.QUERIES, sizes.KEYS = 1, 2, 19, 37
forward, sum_of_splits = cuda.forward, torch.Tensor.sum
for dim, programs, rows, dtype, fault in json.loads(sys.argv[1]):
    sizes.DIM, cuda._PROGRAMS, cuda.forward, torch.Tensor.sum = dim, programs, forward, sum_of_splits
    if fault == "lse":
        cuda.forward = lambda *args: [x + 1e-3 * i for i, x in enumerate(forward(*args))]
    elif fault == "split":
        torch.Tensor.sum = lambda x, dim: x[0]
    found = sizes.passes(cuda, slice(*rows), getattr(torch, dtype))
    torch.Tensor.sum = sum_of_splits
    wanted = sizes.passes(map, slice(*rows), torch.float64)
    print(json.dumps([float((a.double() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]))
"""


@pytest.fixture(scope="module")
def differences():
    """Of each case: the relative differences of all that the kernels compute from the engine of maps in float64."""
    paths = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", PROGRAM, json.dumps(list(CASES.values()))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()[-len(CASES) :]), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_kernels(case, differences):
    """Several blocks of queries and keys, the last one not full; a head's keys in one program or in several; planted faults."""
    found, fault = differences[case], CASES[case][4]
    assert len(found) == 13
    if fault:
        assert max(found) > 1e-4
    else:
        assert max(found) < (3e-3 if CASES[case][3] == "float16" else 4e-6)
