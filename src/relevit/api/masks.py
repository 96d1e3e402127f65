"""`relevit masks`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from relevit import terminal
from relevit.api import types
from relevit.api.types import public

if TYPE_CHECKING:
    from relevit.masking.run.mask_run import MaskRun

_NAMED = 10  # of the unreadable images at most


@public
def masks(
    images: Annotated[types.Files, types.Shown(list[str], "IMAGES")],
    *,
    out: types.Folder,
    model: types.Model = "vit_base_patch16_224.dino",
    checkpoint: types.Output | None = None,
    kind: Literal["key", "query", "value", "token"] = "key",
    block: int = -1,
    refine: bool = True,
    size: types.Count | None = None,
    max_side: types.Count = 512,
    min_confidence: types.Positive = 0.0,
    min_pixels: types.Index = 520,
    override: types.Folder | None = None,
    exclude: types.Files = (),
    batch_size: types.Count = 16,
    workers: types.Index | None = None,
    device: types.Device = None,
    progress: bool = True,
) -> MaskRun:
    """Make foreground masks without annotation (TokenCut), each with a confidence, and a contact sheet to look through them.

    The folder of masks has the layout of the images, for `relevit finetune --masks`. Beside the masks lie masks.csv and
    contact_sheet.html. Stopped at any moment, the same command goes on where it was; thresholds, exclusions and overrides may
    be changed without doing the images again. `relevit finetune --skip-bad` goes on without the images that got no mask. For
    several devices: `accelerate launch -m relevit masks ...`.

    Args:
        images: image files, folders of images, and folders of class folders.
        out: the folder of masks.
        model: the backbone, a timm vision transformer's name, a run or checkpoint folder, a file of weights, or builtin (the demo's).
        kind: which features are compared.
        block: of which block, counted from 0, or from the end by negative numbers.
        refine: draws the masks to the edges of the picture; without it they consist of patches.
        size: resizes the pictures to this short side first; the published masks were made with 224.
        max_side: pixels of the long side that the backbone sees at most; larger pictures are made smaller for it.
        min_confidence: leaves out masks of a lower confidence; any number above 0 leaves out those of which patches and edges tell different things, as the published rule does.
        min_pixels: leaves out masks of fewer pixels.
        override: a folder of your own masks in the same layout; they win.
        exclude: files with names of images, one a line, whose masks are left out; the contact sheet makes one.
        workers: processes that read images and refine masks, 0 for none; by default one for each core.
        device: where the backbone runs, such as cuda; by default the GPU if there is one, and of several processes each on its own.

    Returns:
        A row for each image, and where the contact sheet is.
    """
    options = {
        name: value
        for name, value in locals().items()
        if name not in ("images", "out", "model", "checkpoint", "progress")
    }
    from relevit.masking.run.mask_run import make_masks
    from relevit.models.loading import load
    from relevit.processes import cores, pick_device

    if workers is None:
        options["workers"] = max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if device is not None:
        pick_device(device)  # whether it can be used is known before long work
    options["exclude"] = types.listed(exclude)
    net, _ = load(model, checkpoint=checkpoint, head=False)
    with terminal.progress("masks") as advance:
        return make_masks(
            net, types.listed(images), out, start=lambda total: advance(0, total), advance=advance, **options
        )


def show(run: MaskRun, given: Mapping[str, Any]) -> None:
    """What became of the images."""
    from relevit.masking.record import OVERRIDE, UNREADABLE
    from relevit.masking.refinement import OBJECT
    from relevit.masking.run.publish import count_outcomes
    from relevit.report.table import Table

    rows = [(outcome, str(count)) for outcome, count in count_outcomes(run.rows).items()]
    table = Table("Masks", ("outcome", "images"), rows)
    rate = f", {run.made / run.seconds:.2f} images/s" if run.made else ""
    done = f"{len(run.rows)} images, {run.made} done now in {run.seconds:.1f} s{rate}"
    terminal.show(table, done, f"look through them: {run.sheet}")
    left_out = sum(row.outcome not in (OBJECT, OVERRIDE) for row in run.rows)
    if left_out:
        terminal.show(f"{left_out} images have no mask: `relevit finetune --skip-bad` goes on without them")
    unreadable = [row for row in run.rows if row.outcome == UNREADABLE]
    terminal.remark(*(f"skipped {row.name}: {row.fault}" for row in unreadable[:_NAMED]))
    if len(unreadable) > _NAMED:
        run.notes.append(f"{len(unreadable) - _NAMED} more images could not be read, see masks.csv")
    terminal.remark(*run.notes)
