"""What one training step on relevance costs: time, and memory above the model's own."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from relevit.explainers import forward_with_relevance
from relevit.models.families import of_module
from relevit.models.families.family import unwrap
from relevit.models.working import device_of, working


def step_cost(model: nn.Module, height: int, width: int) -> tuple[float, int]:
    """Seconds of a step on one image of noise (forward, relevance, backward), and the bytes that its backward pass keeps.

    The bytes are those of the tensors saved for it, each storage once, without the weights. `.grad` is as before afterwards.
    """
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    device, dtype = device_of(model), next(model.parameters()).dtype
    channels = of_module(model).channels(unwrap(model)) or 3
    trained = [p for p in model.parameters() if p.requires_grad]
    seconds = 0.0
    with working(model), torch.enable_grad():
        images = torch.randn(1, channels, height, width, device=device, dtype=dtype)
        for count in (False, True):  # the first one warms up
            began = time.perf_counter()
            with torch.autograd.graph.saved_tensors_hooks(note if count else _same, _same):
                logits, maps = forward_with_relevance(model, images)
            torch.autograd.grad(maps.square().mean() + logits.square().mean(), trained, allow_unused=True)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - began
    return seconds, sum(kept.values())


def _same(tensor: Tensor) -> Tensor:
    return tensor
