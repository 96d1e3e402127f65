"""`relevit explain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from relevit import terminal
from relevit.api import types
from relevit.api.types import public
from relevit.errors import UserError

if TYPE_CHECKING:
    from relevit.explainers.overlays import Explained


@public
def explain(
    model: types.Model,
    images: Annotated[types.Files, types.Shown(list[str], "IMAGE")],
    *,
    out: types.Folder = "runs/explain",
    target: types.ClassName | None = None,
    explainer: types.Name = "gae",
    raw: bool = False,
    checkpoint: types.Output | None = None,
    num_classes: types.Count | None = None,
    protocol: types.Protocol = "standard",
    model_args: types.Options = None,
    batch_size: types.Count = 8,
    device: types.Device = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[Explained]:
    """Write relevance maps as pictures: what the model sees, and beside it where it looks.

    Args:
        images: image files and folders; of a folder the tree is kept.
        out: the folder for the pictures.
        target: the class whose map is wanted, by index or name (such as a wnid); by default each image's predicted class.
        explainer: whose map, of gae (the paper's), raw_attention, rollout, gradient_rollout, attention_gradcam, input_x_gradient,
            integrated_gradients, smoothgrad and attn_lrp.
        raw: writes the relevance of each patch, not scaled, as a .npy file beside each picture, too.
        overwrite: replaces pictures that are there already.

    Returns:
        What the model says of each image, and where its picture lies; of an image that cannot be read, the fault.

    Raises:
        UserError: before the first picture, where the input is wrong or a picture is there already.
    """
    from relevit.explainers.overlays import overlay_jobs, write_overlays
    from relevit.models.loading import load
    from relevit.models.model_facts import class_number
    from relevit.processes import pick_device

    jobs = overlay_jobs(types.listed(images), out)
    net, view = load(
        model,
        protocol=protocol,
        device=pick_device(device),
        checkpoint=checkpoint,
        num_classes=num_classes,
        model_args=model_args,
    )
    wanted = None if target is None else class_number(net, str(target))
    with terminal.progress("explaining", len(jobs)) as advance:
        explained = write_overlays(
            net,
            view,
            jobs,
            target=wanted,
            explainer=explainer,
            raw=raw,
            overwrite=overwrite,
            out=out,
            batch_size=batch_size,
            advance=advance,
        )
        return list(explained)


def show(explained: list[Explained], given: Mapping[str, Any]) -> None:
    """A row for each image. Raises UserError where some could not be read."""
    from relevit.report.table import Table

    target = ["map of"] if given["target"] is not None else []
    rows = [
        (
            str(row.source),
            row.predicted_name,
            f"{row.probability:.1%}",
            *([row.target_name] if target else []),
            str(row.overlay),
        )
        for row in explained
        if row.fault is None
    ]
    if rows:
        columns = ("image", "predicted class", "probability", *target, "picture")
        terminal.show(Table(f"What {given['model']} says", columns, rows, left=(0, 1, 3, 4)))
    faults = [row.fault for row in explained if row.fault is not None]
    if faults:
        raise UserError(f"{len(faults)} of {len(explained)} images could not be read: " + "; ".join(faults))
