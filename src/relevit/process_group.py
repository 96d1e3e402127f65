"""The group of processes that a launcher (`torchrun`, `accelerate launch`) started, at the end of a program."""

from __future__ import annotations

import atexit
from functools import cache

import torch.distributed


@cache
def leave_at_exit() -> None:
    """Leave torch's process group of gloo before the interpreter ends, if there is one and nobody has left it by then.

    A group that is never left keeps threads that may still hold tensors when the interpreter ends. A thread that then wants
    the interpreter to free one is unwound by force, and the program aborts after its work is done ("terminate called
    without an active exception"), one time in a hundred or so with gloo. Groups of other backends are left alone: where one process
    fails, leaving might wait for the others.
    """
    atexit.register(_leave)


def _leave() -> None:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    if torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()
