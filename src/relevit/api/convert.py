"""`relevit convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from relevit.terminal import cores, counting, stdout, tell_remarks


def convert(
    format: str,
    source: str,
    out: str,
    images: str | None = None,
    class_list: str | None = None,
    mode: Literal["correct", "paper"] = "correct",
    min_pixels: int | None = None,
    copy: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Turn masks of another format into what finetune takes: OUT/images, OUT/masks, and OUT/ignore where pixels are to be ignored.

    Formats: imagenet-s, png (0/255, 0/1, 16 bits, palette), alpha, coco, voc, numpy (.npy, .npz), tokencut (the published .pt files).
    Everything is read and checked; all faults are listed.

    Args:
        format: the format of the masks, see above.
        source: the folder of masks (ImageNet-S and VOC: or their main folder), or the JSON file of COCO instances.
        out: the folder to write; it must not exist, nor lie in the folder of pictures.
        images: the folder of pictures; not needed for alpha, nor for ImageNet-S and VOC where the pictures lie as published.
        class_list: a text file with one class a line. Only these are read; for imagenet-s the list of all 919 also tells the official ids, for voc what the indices 1, 2, ... are.
        mode: paper counts ignored pixels as background, as the published setup does.
        min_pixels: leaves out masks with fewer object pixels; by default 520 for tokencut (the paper's rule for automatic masks), 0 for other formats.
        copy: copies the pictures, in place of symbolic links to them.
        skip_bad: goes on without pictures and masks that are found to be faulty.
        workers: threads that read pictures; by default one for each core.
        progress: shows a progress bar.
    """
    from relevit.data.annotations.convert import convert_masks

    with counting("converting", progress) as step:
        done = convert_masks(
            format,
            source,
            out,
            images=images,
            class_list=class_list,
            mode=mode,
            min_pixels=min_pixels,
            copy=copy,
            skip_bad=skip_bad,
            workers=cores() if workers is None else workers,
            progress=step,
        )
    tell_remarks(done.notes, done.faults, "left out for their faults:")
    console = stdout()
    for reason, count in done.left_out.items():
        console.print(f"{count} masks left out: {reason}", highlight=False)
    console.print(
        f"{done.images} images of {done.classes} classes, {done.ignored} with ignored pixels: {out}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    folder = Path(out)
    ignore = f" --ignore {folder / 'ignore'}" if done.ignored else ""
    line = f"next: relevit finetune --images {folder / 'images'} --masks {folder / 'masks'}{ignore} --model MODEL --out RUN"
    console.print(line, highlight=False, soft_wrap=True, markup=False)
