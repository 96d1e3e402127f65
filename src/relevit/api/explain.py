"""`relevit explain`."""

from __future__ import annotations

import sys
from typing import Any, Literal

from relevit.errors import UserError
from relevit.terminal import model_arguments, pick_device, stderr, stdout


def explain(
    model: str,
    images: list[str],
    out: str = "runs/explain",
    target: str | None = None,
    method: str = "gae",
    raw: bool = False,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    protocol: Literal["standard", "paper"] = "standard",
    model_args: dict[str, Any] | None = None,
    batch_size: int = 8,
    device: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write relevance maps as pictures: what the model sees, and beside it where it looks.

    Args:
        model: a timm model's name, a run or checkpoint folder, a file of weights, or builtin (the demo's).
        images: image files and folders; of a folder the tree is kept.
        out: the folder for the pictures.
        target: the class whose map is wanted, by index or name (such as a wnid); by default each image's predicted class.
        method: the explainer, of gae (the paper's), raw_attention, rollout, gradient_rollout, attention_gradcam, input_x_gradient,
            integrated_gradients, smoothgrad and attn_lrp.
        raw: writes the relevance of each patch, not scaled, as a .npy file beside each picture, too.
        checkpoint: a file or folder of weights for the timm model MODEL, in place of its pretrained ones.
        num_classes: number of classes, where it differs from the model's own.
        protocol: preprocessing, the model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).
        model_args: further arguments for timm.create_model, such as '{img_size: 384}'.
        batch_size: images in one forward pass.
        device: where to run, such as cuda; by default the GPU if there is one.
        overwrite: replaces pictures that are there already.
    """
    from rich.progress import Progress
    from rich.table import Table

    from relevit.explainers.overlays import overlay_jobs, write_overlays
    from relevit.models.loading import load
    from relevit.models.model_facts import class_name, class_number

    jobs = overlay_jobs(images, out)
    net, view = load(
        model,
        checkpoint=checkpoint,
        protocol=protocol,
        device=pick_device(device),
        **model_arguments(num_classes, model_args),
    )
    wanted = None if target is None else class_number(net, target)
    table = Table(title=f"What {model} says", title_justify="left")
    for column in ("image", "predicted class", "probability", *([] if target is None else ["map of"]), "picture"):
        table.add_column(column, overflow="fold", justify="right" if column == "probability" else "left")
    faults = []
    with Progress(transient=True, console=stderr(), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("explaining", total=len(jobs))
        for one in write_overlays(
            net,
            view,
            jobs,
            target=wanted,
            explainer=method,
            raw=raw,
            overwrite=overwrite,
            batch_size=batch_size,
            advance=lambda count: bar.advance(task, count),
        ):
            if one.fault is not None:
                faults.append(one.fault)
                continue
            shown = [] if target is None else [class_name(net, one.target)]
            table.add_row(
                str(one.source), class_name(net, one.predicted), f"{one.probability:.1%}", *shown, str(one.overlay)
            )
    if len(faults) < len(jobs):
        stdout().print(table)
    if faults:
        raise UserError(f"{len(faults)} of {len(jobs)} images could not be read: " + "; ".join(faults))
