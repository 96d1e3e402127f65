"""`relevit split`."""

from __future__ import annotations

from relevit.terminal import cores, counting, stderr, stdout, tell_remarks


def split(
    masks: str,
    out: str,
    images: str | None = None,
    format: str = "png",
    classes: int = 500,
    per_class: int = 3,
    validation_classes: int | None = None,
    validation_per_class: int = 1,
    seed: int | None = None,
    class_seed: int | None = None,
    min_pixels: int | None = None,
    class_list: str | None = None,
    class_map: str | None = None,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> None:
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
        class_map: a JSON or CSV file from folder name to class index, where folders are named neither by wnid nor by class index.
        skip_bad: takes the next sample where a picture or mask is faulty.
        workers: threads that read pictures; by default one for each core.
        progress: shows a progress bar.
    """
    from relevit.data.annotations.convert import check_new
    from relevit.data.manifest import TRAINING, VALIDATION, write_manifest
    from relevit.data.splits import paper_split

    check_new(out)
    with counting("choosing", progress) as step:
        found = paper_split(
            masks,
            images,
            format=format,
            classes=classes,
            per_class=per_class,
            validation_classes=validation_classes,
            validation_per_class=validation_per_class,
            seed=seed,
            class_seed=class_seed,
            min_pixels=min_pixels,
            class_list=class_list,
            class_map=class_map,
            skip_bad=skip_bad,
            workers=cores() if workers is None else workers,
            progress=step,
        )
    write_manifest(out, found.rows)
    tell_remarks(found.notes, found.faults, "skipped for their faults:")
    if found.short:
        shown = ", ".join(f"{name} ({count})" for name, count in list(found.short.items())[:5])
        text = f"note: {len(found.short)} classes have fewer samples than wanted: {shown}"
        stderr().print(text + (", ..." if len(found.short) > 5 else ""), highlight=False, soft_wrap=True, markup=False)
    console = stdout()
    for reason, count in found.left_out.items():
        console.print(f"{count} masks skipped: {reason}", highlight=False)
    for part in (TRAINING, VALIDATION):
        rows = [row for row in found.rows if row.split == part]
        console.print(
            f"{part}: {len(rows)} samples of {len({row.class_name for row in rows})} classes", highlight=False
        )
    console.print(f"manifest: {out}", highlight=False, soft_wrap=True, markup=False)
