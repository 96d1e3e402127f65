"""`relevit convert`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from relevit import terminal
from relevit.api import types
from relevit.api.types import public

if TYPE_CHECKING:
    from relevit.data.annotations.convert import Converted


@public
def convert(
    format: str,
    source: Annotated[types.Folder, types.Shown(str, "SOURCE")],
    *,
    out: types.Folder,
    images: types.Folder | None = None,
    class_list: types.File | None = None,
    protocol: types.Protocol = "standard",
    min_pixels: types.Index | None = None,
    copy: bool = False,
    skip_bad: bool = False,
    workers: types.Count | None = None,
    progress: bool = True,
) -> Converted:
    """Turn masks of another format into what finetune takes: OUT/images, OUT/masks, and OUT/ignore where pixels are to be ignored.

    Formats: imagenet-s, png (0/255, 0/1, 16 bits, palette), alpha, coco, voc, numpy (.npy, .npz), tokencut (the published .pt files).
    Everything is read and checked; all faults are listed. Stopped, the same command goes on; `torchrun -m relevit convert ...` shares the
    work among processes.

    Args:
        format: the format of the masks, see above.
        source: the folder of masks (ImageNet-S and VOC: or their main folder), or the JSON file of COCO instances.
        out: the folder to write, empty or begun by the same call; it must not lie in the folder of pictures.
        images: the folder of pictures; not needed for alpha, nor for ImageNet-S and VOC where the pictures lie as published.
        class_list: a text file with one class a line. Only these are read; for imagenet-s the list of all 919 also tells the official ids, for voc what the indices 1, 2, ... are.
        protocol: paper counts ignored pixels as background, as the published setup does.
        min_pixels: leaves out masks with fewer object pixels; by default 520 for tokencut (the paper's rule for automatic masks), 0 for other formats.
        copy: copies the pictures, in place of symbolic links to them.
        skip_bad: goes on without pictures and masks that are found to be faulty.
        workers: threads that read pictures; by default one for each core.

    Returns:
        How many pictures were written, and what was left out and why.

    Raises:
        FaultsError: with all faults of the data, unless `skip_bad` is given.
    """
    given = dict(locals())
    from relevit.data.annotations.convert import convert_masks
    from relevit.processes import cores

    with terminal.progress("converting") as count:
        return convert_masks(**given | {"workers": workers or cores(), "progress": count})


def show(converted: Converted, given: Mapping[str, Any]) -> None:
    """What was written and left out, and the next command."""
    terminal.tell_remarks(converted.notes, converted.faults, "left out for their faults:")
    terminal.show(*(f"{count} masks left out: {reason}" for reason, count in converted.left_out.items()))
    folder = Path(given["out"])
    ignore = f" --ignore {folder / 'ignore'}" if converted.ignored else ""
    terminal.show(
        f"{converted.images} images of {converted.classes} classes, {converted.ignored} with ignored pixels: {folder}",
        f"next: relevit finetune --images {folder / 'images'} --masks {folder / 'masks'}{ignore} --model MODEL --out RUN",
    )
