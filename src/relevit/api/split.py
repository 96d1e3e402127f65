"""`relevit split`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from relevit import terminal
from relevit.api import types
from relevit.api.types import public
from relevit.folders import check_new_file

if TYPE_CHECKING:
    from relevit.data.splits import PaperSplit


@public
def split(
    *,
    masks: types.Folder,
    out: types.File,
    images: types.Folder | None = None,
    format: types.Name = "png",
    classes: types.Count = 500,
    per_class: types.Count = 3,
    validation_classes: types.Index | None = None,
    validation_per_class: types.Index = 1,
    seed: types.Index | None = None,
    class_seed: types.Index | None = None,
    min_pixels: types.Index | None = None,
    class_list: types.File | None = None,
    class_map: types.ClassMap | None = None,
    skip_bad: bool = False,
    workers: types.Count | None = None,
    progress: bool = True,
) -> PaperSplit:
    """Choose samples for training and validation, and write the choice to a manifest for finetune --manifest.

    The defaults are the paper's split of ImageNet-S: 3 samples each of the first 500 classes, one each of the others for validation.
    The manifest names the pictures as the converted folder has them (relevit convert).

    Args:
        masks: the folder of masks, MASKS/<class>/<name>.png, or of another format.
        out: the CSV file to write; it must not exist.
        images: the folder of class folders with pictures; not needed where the format says where they are.
        format: the format of the masks, png or another one of relevit convert, such as imagenet-s.
        classes: number of classes for training, the first in order.
        per_class: samples of each class for training.
        validation_classes: number of classes for validation, the last in order; by default all that are not for training.
        validation_per_class: samples of each class for validation.
        seed: another choice of samples; by default the first by name.
        class_seed: another choice of classes; by default the first by name.
        min_pixels: skips masks with fewer object pixels and takes the next of the class; by default 520 for the format tokencut (the paper's rule for automatic masks), 0 for others.
        class_list: a text file with one class a line. Only these are read; for imagenet-s the list of all 919 also tells the official ids.
        skip_bad: takes the next sample where a picture or mask is faulty.
        workers: threads that read pictures; by default one for each core.

    Returns:
        The rows of the manifest, and what was skipped and why.

    Raises:
        FaultsError: with all faults of the data, unless `skip_bad` is given.
    """
    given = dict(locals())
    from relevit.data.manifest import write_manifest
    from relevit.data.splits import paper_split
    from relevit.processes import cores

    check_new_file(given.pop("out"))
    with terminal.progress("choosing") as count:
        chosen = paper_split(**given | {"workers": workers or cores(), "progress": count})
    write_manifest(out, chosen.rows)
    return chosen


def show(chosen: PaperSplit, given: Mapping[str, Any]) -> None:
    """How many samples were chosen, and what was skipped."""
    terminal.tell_remarks(chosen.notes, chosen.faults, "skipped for their faults:")
    if chosen.short:
        examples = ", ".join(f"{name} ({count})" for name, count in list(chosen.short.items())[:5])
        more = ", ..." if len(chosen.short) > 5 else ""
        terminal.remark(f"note: {len(chosen.short)} classes have fewer samples than wanted: {examples}{more}")
    terminal.show(*(f"{count} masks skipped: {reason}" for reason, count in chosen.left_out.items()))
    for part in ("training", "validation"):
        names = [row.class_name for row in chosen.rows if row.split == part]
        terminal.show(f"{part}: {len(names)} samples of {len(set(names))} classes")
    terminal.show(f"manifest: {given['out']}")
