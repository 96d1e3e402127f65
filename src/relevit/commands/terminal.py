"""What the subcommands share: the consoles they print on, and the device they run on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def pick_device(name: str | None) -> str:
    """The device that was asked for, by default the GPU if there is one."""
    if name is not None:
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def stdout() -> Console:
    """A console on standard output. Without a terminal (a file, a pipe) the tables keep their full width."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def stderr() -> Console:
    """A console on standard error."""
    from rich.console import Console

    return Console(stderr=True)
