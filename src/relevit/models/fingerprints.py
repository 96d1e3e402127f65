"""Hashes that tell one set of weights from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def of_weights(weights: Mapping[str, torch.Tensor]) -> str:
    """A hash of named tensors: names, types, shapes and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
