"""Pictures with a bright object, and a stand-in for a transformer's patch features: the mean colour of every patch."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import relevit.masking.make as automatic
from tiny_run import tiny_model

PATCH = 4


def colour_features(model: Any, images: torch.Tensor, *, kind: str = "key", block: int = -1) -> tuple[Any, Any]:
    """Bright patches point one way, dark ones the other: mid-grey is 0 after normalisation."""
    means = F.avg_pool2d(images, PATCH)  # (batch, 3, rows, cols)
    return means.flatten(2).transpose(1, 2).contiguous(), (means.shape[2], means.shape[3])


def picture(width: int = 40, height: int = 28, box: tuple[int, int, int, int] = (24, 4, 36, 16), seed: int = 0) -> Any:
    """Dark noise with a bright box (left, top, right, bottom); and the box as a mask."""
    rng = np.random.default_rng(seed)
    values = rng.integers(20, 40, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    values[mask] = rng.integers(220, 240, (int(mask.sum()), 3))
    return Image.fromarray(values), mask


def tree(root: Path, classes: int = 2, each: int = 3) -> Path:
    """root/CLASS/NUMBER.png, of two sizes, every object at a place of its own: those of
    class 0 and the first of class 1 touch the picture's border."""
    for label in range(classes):
        (root / str(label)).mkdir(parents=True)
        for number in range(each):
            left, top = 4 * number, 4 * label
            size = (40, 28) if number % 2 else (28, 36)
            image, _ = picture(*size, (left, top, left + 12, top + 12), seed=10 * label + number)
            image.save(root / str(label) / f"{number}.png")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(images: str, out: str, kill_at: int | None = None, **changed: Any) -> int:
    """A whole run with the stand-in; returns its number of events (flushes, renamings), at one of which it may kill itself."""
    from relevit.masking.run.mask_run import make_masks

    torch.set_num_threads(1)
    events = 0

    def counted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal events
            if kill_at == events:
                os.kill(os.getpid(), signal.SIGKILL)
            events += 1
            return function(*args, **kwargs)

        return call

    kept = os.replace, os.fsync, automatic.patch_features
    os.replace, os.fsync, automatic.patch_features = counted(os.replace), counted(os.fsync), colour_features
    try:
        usual: dict[str, Any] = {"min_pixels": 9, "batch_size": 2}
        options = {"start": lambda total: sys.stdout.write(f"share {total}\n"), **usual, **changed}  # in one piece
        sys.stdout.write(f"made {make_masks(tiny_model(), images, out, **options).made}\n")
    finally:
        os.replace, os.fsync, automatic.patch_features = kept
    return events


if __name__ == "__main__":
    import leaving  # noqa: F401

    run(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
