"""What `relevit measure` reads: the data of a test, by a path or a name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from relevit.data.benchmarks.timm_sets import is_timm_string
from relevit.data.classes import ClassMap
from relevit.data.masked_images import BUILTIN, MaskedImages, open_masked
from relevit.data.sets import StreamSet, of_dataset
from relevit.errors import UserError
from relevit.evaluation.sources import resolve


def open_data(
    row: Any,
    source: str,
    *,
    masks: str | None = None,
    ignore: str | None = None,
    train: str | None = None,
    model: nn.Module | None = None,
    class_map: ClassMap | None = None,
    protocol: str = "standard",
    benchmark: str | None = None,
) -> tuple[Any, dict[str, Any]]:
    """What `relevit measure` reads: the data of a test, and the options that come of its other inputs.

    source: for "masks" what `relevit.data.masked_images.open_masked` takes; for others what `open_images` takes, with `protocol` and
    `benchmark`. masks, ignore: folders of masks and of pixels to ignore. train: as source.
    Raises UserError for an input that is missing, or that the test does not take.
    """
    if row.needs == "masks":
        if train is not None:
            raise UserError("this test trains on nothing: leave out --train")
        if benchmark is not None:
            raise UserError("this test needs images with masks, which benchmarks lack: leave out --benchmark")
        found = open_masked(source, masks, ignore=ignore, model=model, class_map=class_map)
        if model is None and isinstance(found, MaskedImages):  # each model has its own labels
            return replace(of_dataset(found), labels=None, masked=True), {}
        return found, {}
    if masks is not None or ignore is not None:
        raise UserError(f"this test takes no masks: leave out {'--masks' if masks is not None else '--ignore'}")
    if row.needs == "images":
        if train is not None:
            raise UserError("this test trains on nothing: leave out --train")
        return open_images(source, protocol, benchmark), {}
    if train is None:
        raise UserError("this test needs class folders to train on: give --train DIR")
    return open_images(source, protocol, benchmark), {"train": open_images(train, protocol)}


def open_images(source: str, protocol: str = "standard", benchmark: str | None = None) -> Any:
    """One set of labelled images: of what `relevit evaluate` takes as --data, or "builtin" or "builtin/SET".

    That is a benchmark, or a folder of them (`relevit.data.benchmarks.find_benchmarks`), class folders, a YAML of paths, tar files, or a
    data set of timm's that can be read image by image. `benchmark` names one of several; without it, ImageNet's validation images have
    their own labels, not the reassessed ones. Raises UserError for anything else, and for several sets of which none is named.
    """
    if source == BUILTIN or source.startswith(f"{BUILTIN}/"):
        if benchmark is not None:
            raise UserError(f"a set of the built-in benchmark is named {BUILTIN}/SET: leave out --benchmark")
        return open_masked(source)
    if not Path(source).exists() and not is_timm_string(source):
        raise UserError(f"{source} is not a folder or a file: give class folders, a benchmark, or builtin")
    openers = dict(resolve(source, protocol).openers)
    if benchmark is not None:
        named = [name for name in openers if name == benchmark or name == f"{source.rstrip('/')}/{benchmark}"]
        if not named:
            raise UserError(f"there is no benchmark {benchmark} in {source}; there are: {', '.join(openers)}")
        openers = {named[0]: openers[named[0]]}
    elif "imagenet" in openers:
        openers.pop("imagenet-real", None)
    if len(openers) > 1:
        raise UserError(f"{source} holds several sets: give --benchmark, one of {', '.join(openers)}")
    data = next(iter(openers.values()))()
    if isinstance(data, StreamSet):
        raise UserError(
            f"{source} can only be read from its beginning to its end: give its images as folders or tar files"
        )
    return data
