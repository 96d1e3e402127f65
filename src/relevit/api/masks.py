"""`relevit masks`."""

from __future__ import annotations

import os
import sys
from typing import Literal

from relevit.terminal import cores, pick_device, stderr, stdout

_NAMED = 10  # of the unreadable images at most
_NO_FILES: list[str] = []


def masks(
    images: list[str],
    out: str,
    model: str = "vit_base_patch16_224.dino",
    checkpoint: str | None = None,
    kind: Literal["key", "query", "value", "token"] = "key",
    block: int = -1,
    refine: bool = True,
    size: int | None = None,
    max_side: int = 512,
    min_confidence: float = 0.0,
    min_pixels: int = 520,
    override: str | None = None,
    exclude: list[str] = _NO_FILES,
    batch_size: int = 16,
    workers: int | None = None,
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Make foreground masks without annotation (TokenCut), each with a confidence, and a contact sheet to look through them.

    The folder of masks has the layout of the images, for `relevit finetune --masks`. Beside the masks lie masks.csv and
    contact_sheet.html. Stopped at any moment, the same command goes on where it was; thresholds, exclusions and overrides may
    be changed without doing the images again. `relevit finetune --skip-bad` goes on without the images that got no mask. For
    several devices: `accelerate launch -m relevit masks ...`.

    Args:
        images: image files, folders of images, and folders of class folders.
        out: the folder of masks.
        model: the backbone, a timm vision transformer's name, a run or checkpoint folder, a file of weights, or builtin (the demo's).
        checkpoint: a file or folder of weights for the timm model MODEL, in place of its pretrained ones.
        kind: which features are compared.
        block: of which block, counted from 0, or from the end by negative numbers.
        refine: draws the masks to the edges of the picture; without it they consist of patches.
        size: resizes the pictures to this short side first; the published masks were made with 224.
        max_side: pixels of the long side that the backbone sees at most; larger pictures are made smaller for it.
        min_confidence: leaves out masks of a lower confidence; any number above 0 leaves out those of which patches and edges tell different things, as the published rule does.
        min_pixels: leaves out masks of fewer pixels.
        override: a folder of your own masks in the same layout; they win.
        exclude: files with names of images, one a line, whose masks are left out; the contact sheet makes one.
        batch_size: images in one forward pass.
        workers: processes that read images and refine masks, 0 for none; by default one for each core.
        device: where the backbone runs, such as cuda; by default the GPU if there is one, and of several processes each on its own.
        progress: shows a progress bar.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table

    from relevit.masking.refinement import OBJECT
    from relevit.masking.run.mask_run import make_masks
    from relevit.masking.run.publish import OVERRIDE, UNREADABLE, count_outcomes
    from relevit.models.loading import load

    first = int(os.environ.get("RANK", "0")) == 0
    if workers is None:
        workers = max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if device is not None:
        pick_device(device)  # whether it can be used is known before long work
    net = load(model, checkpoint=checkpoint)[0]
    bar = Progress(
        TextColumn("masks"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        transient=True,
        console=stderr(),
        disable=not (progress and first and sys.stderr.isatty()),
    )
    with bar:
        task = bar.add_task("masks", total=None, rate="")

        def advance(count: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, advance=count, rate=f"{speed:.1f} images/s" if speed else "")

        run = make_masks(
            net,
            images,
            out,
            kind=kind,
            block=block,
            refine=refine,
            size=size,
            max_side=max_side,
            min_confidence=min_confidence,
            min_pixels=min_pixels,
            override=override,
            exclude=exclude,
            batch_size=batch_size,
            workers=workers,
            device=device,
            start=lambda total: bar.update(task, total=total),
            advance=advance,
        )
    if not first:
        return
    table = Table(title="Masks", title_justify="left")
    table.add_column("outcome")
    table.add_column("images", justify="right")
    for outcome, count in count_outcomes(run.rows).items():
        table.add_row(outcome, str(count))
    stdout().print(table)
    rate = f"{run.made} done now in {run.seconds:.1f} s" + (
        f", {run.made / run.seconds:.2f} images/s" if run.made else ""
    )
    stdout().print(f"{len(run.rows)} images, {rate}\nlook through them: {run.sheet}", highlight=False, soft_wrap=True)
    left_out = sum(row.outcome not in (OBJECT, OVERRIDE) for row in run.rows)
    if left_out:
        stdout().print(f"{left_out} images have no mask: `relevit finetune --skip-bad` goes on without them")
    unreadable = [row for row in run.rows if row.outcome == UNREADABLE]
    for row in unreadable[:_NAMED]:
        stderr().print(f"skipped {row.file}: {row.note}", highlight=False, markup=False, soft_wrap=True)
    if len(unreadable) > _NAMED:
        run.notes.append(f"{len(unreadable) - _NAMED} more images could not be read, see masks.csv")
    for note in run.notes:
        stderr().print(note, highlight=False, markup=False, soft_wrap=True)
