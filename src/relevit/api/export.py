"""`relevit export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from relevit import terminal
from relevit.api import types
from relevit.api.types import public

if TYPE_CHECKING:
    from relevit.models.weights.exporting import Exported


@public
def export(
    run: types.Run,
    *,
    out: types.Output,
    like: types.File | None = None,
    weights: Annotated[str | None, types.Shown(metavar="NAME")] = None,
) -> Exported:
    """Write a run's weights in the form of your own checkpoint, so that your own code loads them.

    With a file to be like, container, prefix, names and number format are that file's, and your `load_state_dict(strict=True)` takes
    the result; a model of transformers in the form of a folder is written by its `save_pretrained`. Without one, a file gets the bare state dictionary by the library's own names (`.pth`, `.pt`, `.bin` or `.safetensors`),
    and a folder the library's own form, which `timm.create_model("local-dir:DIR")` or `from_pretrained` loads.

    Args:
        run: a run's folder (its best checkpoint), a checkpoint's folder, or another model as explain takes it.
        out: the file or folder to write; nothing is overwritten.
        like: the file or folder that the model was imported from, or another of its form.
        weights: of a file with several sets of weights, the one that is written; by default all that fit the model.

    Returns:
        Where it was written, and remarks.

    Raises:
        UserError: for a file that has no place for the model's weights.
    """
    from relevit.errors import ArgumentError
    from relevit.folders import check_new_file
    from relevit.models.families import of_folder, of_module
    from relevit.models.loading import load, save_checkpoint
    from relevit.models.weights.exporting import Exported, export_like, export_plain, export_pretrained
    from relevit.models.weights.reading import read

    check_new_file(out)
    model, _ = load(run)
    if like is None and not Path(out).suffix:
        save_checkpoint(out, model)
        return Exported(Path(out), [])
    if like is None:
        return export_plain(model, Path(out))
    inner = getattr(model, "tower", model)
    if hasattr(inner, "save_pretrained") and of_folder(like) is of_module(inner):
        if weights is not None:
            raise ArgumentError("weights", f"is for files with several sets of weights, not for the folder {like}")
        return export_pretrained(inner, Path(like), Path(out))
    return export_like(model, read(like), out, weights=weights)


def show(result: Exported, given: Mapping[str, Any]) -> None:
    """Where it was written."""
    terminal.show(*result.notes, f"written: {result.path}")
