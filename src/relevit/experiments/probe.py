"""A linear head for the frozen features of the built-in backbone: the path of appendix L, on the built-in benchmark."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

PER_CLASS, SEED = (
    60,
    400,
)  # pictures of each class, and of the draw: no training sample of any experiment is drawn by this seed


def linear_head(name: str, folder: Path) -> dict[str, Any]:
    """The built-in model with a new head, trained by `train_linear_probe` on shortcut pictures of the training objects of all classes,
    in the folder's starts/NAME. The other weights stay."""
    from relevit.evaluation.frozen.linear_probe import train_linear_probe
    from relevit.models.loading import is_checkpoint, load

    out = folder / "starts" / name
    if is_checkpoint(out):  # its result was not written: it was interrupted just before
        shutil.rmtree(out)
    model, view = load("builtin")
    return train_linear_probe(model, view, _pictures(folder / "starts" / "pictures"), out).to_dict()


def _pictures(out: Path) -> Path:
    """The pictures in class folders whose names sort as the benchmark's classes are numbered."""
    from PIL import Image

    from relevit.data.builtin.digits import CLASSES, training_samples
    from relevit.files import atomic_folder

    if not out.exists():
        drawn = training_samples(PER_CLASS, SEED, tuple(range(len(CLASSES))))
        with atomic_folder(out) as made:
            for number, (image, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
                place = made / f"{label:02d} {CLASSES[label]}"
                place.mkdir(exist_ok=True)
                Image.fromarray(image).save(place / f"{number:05d}.png")
    return out
