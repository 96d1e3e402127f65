"""The devices and processes of a training run, by accelerate: one process, or several of `torchrun` or `accelerate launch`."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from relevit.errors import UserError
from relevit.processes import Processes, leave_at_exit


def make_accelerator(precision: str) -> Accelerator:
    """Accelerate's view of devices and processes. Its process-wide state is renewed for another precision."""
    mixed = "no" if precision == "float32" else precision
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed:
        AcceleratorState._reset_state()
    Processes()  # on processors, accelerate would take each process for alone
    leave_at_exit()
    try:
        return Accelerator(mixed_precision=mixed)
    except ValueError as error:
        raise UserError(f"precision={precision!r} does not work on this machine: {error}") from error


def share_gradients(accelerator: Accelerator, parameters: list[Any]) -> None:
    """Add up the gradients of all processes; each has weighted its loss by its share of the samples.

    Done here and not by DistributedDataParallel, whose forward pass the relevance maps would have to go around.
    """
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    flat = accelerator.reduce(flat, "sum")
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
