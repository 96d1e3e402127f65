"""A model at work, and as it was before when the work is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def as_before(net: nn.Module) -> Iterator[None]:
    """Device, modes of all modules, `.grad` and the global random state are as before when the context ends."""
    modes = [(module, module.training) for module in net.modules()]
    home = next(net.parameters()).device
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            net.zero_grad(set_to_none=True)
            for module, mode in modes:
                module.training = mode
            net.to(home)
