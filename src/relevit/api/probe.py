"""`relevit probe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from relevit import terminal
from relevit.api import types
from relevit.api.types import public

if TYPE_CHECKING:
    from relevit.evaluation.frozen.linear_probe import ProbeFigures


@public
def probe(
    model: types.Model,
    *,
    images: types.Folder,
    out: types.Output,
    checkpoint: types.Output | None = None,
    protocol: types.Protocol = "standard",
    model_args: types.Options = None,
    strengths: Sequence[types.Positive] = (0.001, 0.01, 0.1, 1.0, 10.0),
    held_out: Annotated[float, types.Bounds(0, 1)] = 0.2,
    seed: types.Index = 0,
    batch_size: types.Count = 64,
    workers: types.Index = 0,
    device: types.Device = None,
    progress: bool = True,
) -> ProbeFigures:
    """Train a linear head on a backbone's frozen features: a classifier of a self-supervised model.

    The backbone stays as it is. The result is a checkpoint for every other command, whose classes are the folders in sorted order, by name.
    The same call goes on where it was stopped.

    Args:
        model: a timm model's name, such as vit_base_patch16_224.dino, a run or checkpoint folder, or a file of weights.
        images: a folder of class folders, DIR/<class>/<image>.
        out: the folder for the checkpoint.
        strengths: inverse regularisation strengths C to choose from, on held-out images of each class.
        held_out: share of each class's images that is held out for this choice; the head is then trained on all.
        seed: of the draw of the held-out images.

    Returns:
        The accuracy of each strength on the held-out images, and the one that was chosen.
    """
    from pathlib import Path

    from relevit.evaluation.frozen.linear_probe import train_linear_probe
    from relevit.models.loading import load
    from relevit.processes import pick_device

    home = pick_device(device)
    net, view = load(model, protocol=protocol, device=home, checkpoint=checkpoint, model_args=model_args, head=False)
    return train_linear_probe(
        net,
        view,
        Path(images),
        out,
        strengths=strengths,
        held_out=held_out,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
    )


def show(figures: ProbeFigures, given: Mapping[str, Any]) -> None:
    """The accuracy of each strength, and what to do with the classifier."""
    terminal.show(f"{figures.images:,} images of {figures.classes:,} classes")
    for strength, accuracy in figures.held_out.items():
        chosen = "  <- chosen" if strength == figures.strength else ""
        terminal.show(f"  C {strength:g}: {accuracy:.1f} % of the held-out images right{chosen}")
    terminal.remark(*(f"left out: {reason}" for reason in figures.unreadable))
    terminal.show(f"classifier: {given['out']}; for instance: relevit finetune --model {given['out']} ...")
