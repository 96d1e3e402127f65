"""`relevit import`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from relevit import terminal
from relevit.api import types
from relevit.api.types import public

Colour = Annotated[tuple[float, float, float] | None, types.Shown(metavar=("R", "G", "B"))]


class Imported(NamedTuple):
    """The folder of the model, which set of weights it is, and what was guessed, resampled or left out."""

    folder: Path
    weights: str
    notes: list[str]


@public
def import_checkpoint(
    file: types.File,
    *,
    architecture: types.Name,
    out: types.Folder,
    weights: Annotated[str | None, types.Shown(metavar="NAME")] = None,
    class_names: types.File | None = None,
    mean: Colour = None,
    std: Colour = None,
    image_size: Annotated[types.Count | None, types.Shown(metavar="PIXELS")] = None,
    resize: Annotated[types.Count | None, types.Shown(metavar="PIXELS")] = None,
    interpolation: types.Name | None = None,
    num_classes: types.Count | None = None,
    model_args: types.Options = None,
) -> Imported:
    """Make a model for every command of a checkpoint that your own training loop wrote.

    A state dictionary may lie in any container (model, state_dict, student, ...) and have any prefix (module., model.backbone., ...):
    both are found by the architecture's names and shapes. timm's train.py, Lightning, accelerate, transformers' Trainer, DeiT's and MAE's
    scripts, safetensors (in shards, too) and old formats are read; nothing of a file is ever run. What is guessed, resampled or left
    out is said, and what does not fit is refused. `relevit export` writes the weights back into the form of the file.

    Args:
        file: the checkpoint, a file or a folder (such as checkpoint-500).
        architecture: the timm name of its architecture, such as vit_base_patch16_224.
        out: the folder for the model.
        weights: of a file with several sets of weights, which: ema, model, or the set's name; by default what timm would evaluate.
        class_names: a file of the classes' names in their order (JSON, or text with a name on each line), or the folder of class folders
            that the model was trained with; by default what is in the file or beside it.
        mean: mean of each channel in the model's training; by default the file's own options, else timm's for the architecture.
        std: standard deviation of each channel, likewise.
        image_size: side of the model's input in pixels; by default that of the file's position embedding or of the architecture.
        resize: short side in pixels to which a picture is resized before the crop.
        interpolation: filter with which pictures are resized: nearest, bilinear, bicubic, box, hamming or lanczos.
        num_classes: number of classes; another one than the file's gives a new, untrained head.
        model_args: further arguments for timm.create_model, such as '{depth: 6}'.

    Returns:
        The folder, the set of weights that was taken, and the remarks.

    Raises:
        UserError: for a file that is no checkpoint or holds types that could run code, and for weights that do not fit.
    """
    from relevit.folders import check_new_file
    from relevit.models.loading import opened, save_checkpoint
    from relevit.models.weights.options import FileOptions, split_options

    path, options = split_options(file)
    said = {
        "weights": weights,
        "class_names": class_names,
        "mean": mean,
        "std": std,
        "image_size": image_size,
        "resize": resize,
        "interpolation": interpolation,
    }
    options = FileOptions.of({**vars(options), **{name: value for name, value in said.items() if value is not None}})
    folder = Path(out)
    check_new_file(folder)
    arguments = {**(model_args or {}), **({} if num_classes is None else {"num_classes": num_classes})}
    found = opened(architecture, Path(path), options, arguments)
    name = found.chosen.name or "the file itself"
    extra = {"imported": {"file": Path(path).name, "weights": name, "notes": found.notes}}
    save_checkpoint(folder, found.model, extra=extra)
    return Imported(folder, name, found.notes)


def show(result: Imported, given: Mapping[str, Any]) -> None:
    """What was taken, and what to do with it."""
    terminal.show(*result.notes, f"model: {result.folder}; for instance: relevit explain {result.folder} IMAGE")
