"""`relevit evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from relevit.commands.terminal import pick_device, stderr, stdout
from relevit.errors import UserError


def evaluate(
    models: list[str],
    data: list[str],
    out: str | None = None,
    class_map: str | None = None,
    normalization: Literal["model", "paper"] = "model",
    batch_size: int = 64,
    workers: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Measure R@1 and R@5 of one or several models on folders of class folders, side by side.

    Each model sees the images through its own preprocessing. Images that cannot be read are counted and named. Of a folder made by
    `relevit compose` every set is measured, and the background gap is given: R@1 on mixed_same minus R@1 on mixed_rand.

    Args:
        models: one or several models, each a timm model's name, a run or checkpoint folder, a file of weights, or builtin (the demo's).
        data: one or several folders of class folders with images, DIR/<class>/<image>, or made by `relevit compose`.
        out: a JSON file for the figures, with those of every class.
        class_map: a JSON or CSV file from folder name to class index, where folders are named neither by wnid nor by class index.
        normalization: preprocessing, each model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).
        batch_size: images in one forward pass.
        workers: processes that read images; 0 reads in this one.
        device: where to run, such as cuda; by default the GPU if there is one.
        progress: shows a progress bar.
    """
    from relevit.evaluation import evaluate as measure
    from relevit.models import load

    if out is not None and Path(out).exists():
        raise UserError(f"{out} is there already: give another --out, or remove it")
    home = pick_device(device)
    report = measure(
        {name: load(name, normalization=normalization, device=home) for name in models},
        {name: name for name in data},
        class_map=class_map,
        batch_size=batch_size,
        workers=workers,
        progress=progress and sys.stderr.isatty(),
    )
    stdout().print(report.table())
    for benchmark, left_out in report.unreadable.items():
        if left_out:
            stderr().print(
                f"{len(left_out)} images of {benchmark} could not be read and do not count:", highlight=False
            )
            for _, reason in left_out:
                stderr().print(f"  {reason}", highlight=False, soft_wrap=True)
    if out is not None:
        report.save(out)
        stdout().print(f"figures of every class: {out}", highlight=False, soft_wrap=True)
