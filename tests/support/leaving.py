"""For programs of several processes: says at the end whether this one left torch's process group ("left") or not."""

import atexit
import sys

import torch.distributed


def _tell() -> None:
    sys.stdout.write("stayed\n" if torch.distributed.is_initialized() else "left\n")


atexit.register(_tell)  # runs after what is registered later
