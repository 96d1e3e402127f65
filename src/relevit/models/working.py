"""A model at work, and as it was before when the work is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer is; the processor for a model without any."""
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), torch.device("cpu"))


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """A context after which the device and the mode of every module are as before, also after an exception."""
    modes, home = [(module, module.training) for module in model.modules()], device_of(model)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        if device_of(model) != home:
            model.to(home)


@contextmanager
def working(model: nn.Module, device: str | torch.device | None = None) -> Iterator[torch.device]:
    """A context with the model in evaluation mode on `device` (None: where it is), which it yields.

    Afterwards the device and the mode of every module are as before, also after an exception.
    """
    with restored(model):
        model.eval()
        if device is not None:
            model.to(device)
        yield device_of(model)


@contextmanager
def learning(model: nn.Module) -> Iterator[None]:
    """A context to train the model in: device, modes and the global random state are as before afterwards, no `.grad` stays."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), restored(model):
        try:
            yield
        finally:
            model.zero_grad(set_to_none=True)
