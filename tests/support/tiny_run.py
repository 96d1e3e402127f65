"""A training run that takes a second: a transformer of two narrow blocks, pictures of 16 x 16 pixels."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from relevit.data.sample import Sample

CLASSES, SIZE = 5, 16


def tiny_model(seed: int = 0, drop: float = 0.1, **arguments: Any) -> torch.nn.Module:
    """Dropout and stochastic depth are on, so that training depends on random numbers."""
    torch.manual_seed(seed)
    sizes = {"img_size": SIZE, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": CLASSES}
    rates = {"proj_drop_rate": drop, "drop_path_rate": drop}
    return timm.create_model("vit_tiny_patch16_224", **{**sizes, **rates, **arguments})


class TinySamples:
    """`count` pictures of noise with a bright rectangle, whose mask is the rectangle."""

    def __init__(self, count: int, seed: int = 0, ignore: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.images = rng.integers(0, 120, (count, SIZE, SIZE, 3)).astype(np.uint8)
        self.masks = np.zeros((count, SIZE, SIZE), np.float32)
        self.labels = rng.integers(0, CLASSES, count)
        self.ignore = rng.random((count, SIZE, SIZE)) < 0.2 if ignore else None
        for image, mask, label in zip(self.images, self.masks, self.labels, strict=True):
            y, x = rng.integers(0, SIZE - 8, 2)
            mask[y : y + 7, x : x + 5] = 1
            image[mask > 0] = 130 + 20 * label

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        ignore = None if self.ignore is None else self.ignore[index]
        return Sample(self.images[index], self.masks[index], int(self.labels[index]), ignore, f"picture-{index}")


class InterruptingSamples(TinySamples):
    """The same, of which the reading of number `after` is interrupted by Ctrl-C."""

    def __init__(self, count: int, after: int) -> None:
        super().__init__(count)
        self.left = after

    def __getitem__(self, index: int) -> Sample:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(index)


def arguments(**changed: Any) -> dict[str, Any]:
    """Arguments of `finetune` for a run of 3 epochs with 4 steps each, the last on 2 samples."""
    usual: dict[str, Any] = {
        "validation": TinySamples(7, seed=1),
        "epochs": 3,
        "batch_size": 4,
        "lr": 1e-3,
        "previews": 2,
        "track": (),
        "progress": False,
    }
    return {**usual, **changed}


def run(out: str | None, kill_at: int | None = None, **changed: Any) -> tuple[int, int]:
    """A whole run; returns the number of events (optimiser steps, flushes, renamings), and which was the last step.

    kill_at: the number of the event at which the process kills itself with SIGKILL. A state is written at every step.
    """
    from relevit.training import loop as training
    from relevit.training import run_folder as runfolder

    torch.set_num_threads(1)
    events = last_step = 0

    def counted(function: Any, is_step: bool = False) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal events, last_step
            if kill_at == events:
                os.kill(os.getpid(), signal.SIGKILL)
            last_step = events if is_step else last_step
            events += 1
            return function(*args, **kwargs)

        return call

    kept = os.replace, os.fsync, os.rename, torch.optim.AdamW.step, runfolder._SHARE
    os.replace, os.fsync, os.rename = counted(os.replace), counted(os.fsync), counted(os.rename)
    torch.optim.AdamW.step, runfolder._SHARE = counted(torch.optim.AdamW.step, True), float("inf")
    try:
        usual = {"checkpoint_seconds": 0.0, "method": "relevance+background_swap"}
        training.finetune(tiny_model(), TinySamples(14), out, **arguments(**{**usual, **changed}))
    finally:
        os.replace, os.fsync, os.rename, torch.optim.AdamW.step, runfolder._SHARE = kept
    return events, last_step


def weights_of(out: Path) -> dict[str, bytes]:
    """The bytes of the checkpoints' weights."""
    return {name: (out / name / "model.safetensors").read_bytes() for name in ("best", "last")}


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a model's weights."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: Any, other: Any) -> bool:
    """Whether two models, or two copies of weights, agree to the bit."""
    first, second = (given.state_dict() if isinstance(given, torch.nn.Module) else given for given in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a run's log."""
    with file.open() as opened:
        return list(csv.DictReader(opened))
