"""A model at work, and as it was before when the work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

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


@contextmanager
def altered(model: nn.Module, alter: Callable[[], object]) -> Iterator[None]:
    """A context in which `alter()` has changed attributes, parameters and buffers of the model's modules.

    What was replaced is put back afterwards, the same objects, also after an exception; what was changed in between on the new
    ones is lost.
    """
    before = [(module, _entries(module)) for module in model.modules()]
    try:
        try:
            alter()
        finally:
            changed = [(module, _changes(entries, _entries(module))) for module, entries in before]
        yield
    finally:
        for module, changes in changed:
            _put_back(module, changes)


_MISSING = object()
_Entries = dict[tuple[str, str], Any]  # (container, name): value; the container is "" for plain attributes


def _entries(module: nn.Module) -> _Entries:
    own = {("", name): value for name, value in vars(module).items() if name not in ("_parameters", "_buffers")}
    parameters = {("_parameters", name): value for name, value in module._parameters.items()}
    return {**own, **parameters, **{("_buffers", name): value for name, value in module._buffers.items()}}


def _changes(before: _Entries, after: _Entries) -> _Entries:
    """What to set for things to be as before."""
    keys = {**before, **after}
    return {key: before.get(key, _MISSING) for key in keys if before.get(key, _MISSING) is not after.get(key, _MISSING)}


def _put_back(module: nn.Module, changes: _Entries) -> None:
    for (container, name), value in changes.items():
        place = vars(module)[container] if container else vars(module)
        if value is _MISSING:
            place.pop(name, None)
        else:
            place[name] = value


@contextmanager
def compiled(model: nn.Module) -> Iterator[None]:
    """A context in which the model runs as torch.compile makes it, in place: maps are computed beside that, as it is written."""
    before = model._compiled_call_impl
    try:
        model.compile()
        yield
    finally:
        model._compiled_call_impl = before
