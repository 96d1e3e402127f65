"""`relevit probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from relevit.terminal import counting, model_arguments, pick_device, stderr, stdout

_STRENGTHS = [
    0.001,
    0.01,
    0.1,
    1.0,
    10.0,
]  # as in linear_probe.py (a test compares them); here so that the help needs no torch


def probe(
    model: str,
    images: str,
    out: str,
    checkpoint: str | None = None,
    protocol: Literal["standard", "paper"] = "standard",
    model_args: dict[str, Any] | None = None,
    strengths: list[float] = _STRENGTHS,
    held_out: float = 0.2,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Train a linear head on a backbone's frozen features: a classifier of a self-supervised model.

    The backbone stays as it is. The result is a checkpoint for every other command, whose classes are the folders in sorted order, by name.
    The same call goes on where it was stopped.

    Args:
        model: a timm model's name, such as vit_base_patch16_224.dino, a run or checkpoint folder, or a file of weights.
        images: a folder of class folders, DIR/<class>/<image>.
        out: the folder for the checkpoint.
        checkpoint: a file or folder of weights for the timm model MODEL, in place of its pretrained ones.
        protocol: preprocessing, the model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).
        model_args: further arguments for timm.create_model, such as '{img_size: 384}'.
        strengths: inverse regularisation strengths C to choose from, on held-out images of each class.
        held_out: share of each class's images that is held out for this choice; the head is then trained on all.
        seed: of the draw of the held-out images.
        batch_size: images in one forward pass.
        workers: processes that read images; 0 reads in this one.
        device: where to run, such as cuda; by default the GPU if there is one.
        progress: shows a progress bar.
    """
    from relevit.evaluation.frozen.linear_probe import train_linear_probe
    from relevit.models.loading import load

    net, view = load(
        model,
        checkpoint=checkpoint,
        protocol=protocol,
        device=pick_device(device),
        **model_arguments(None, model_args),
    )
    with counting("features", progress) as step:
        figures = train_linear_probe(
            net,
            view,
            Path(images),
            out,
            strengths=strengths,
            held_out=held_out,
            seed=seed,
            batch_size=batch_size,
            workers=workers,
            progress=step,
        )
    console = stdout()
    console.print(f"{figures.images:,} images of {figures.classes:,} classes", highlight=False)
    for strength, accuracy in figures.held_out.items():
        chosen = "  <- chosen" if strength == figures.strength else ""
        console.print(f"  C {strength:g}: {accuracy:.1f} % of the held-out images right{chosen}", highlight=False)
    for reason in figures.unreadable:
        stderr().print(f"left out: {reason}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"classifier: {out}; for instance: relevit finetune --model {out} ...",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
