"""Every measurement of relevance and robustness beyond accuracy, by name: `relevit measure` runs them from this table.

A function is called `function(model, view, data, *, batch_size, seed, progress, ...)`, with keyword options of its own after these;
`view` is the transform that `relevit.load` gives, `progress` is called with the number of images that are done since its last call. It
returns a frozen result that yields (name, value) and has `to_dict()`. One that has what `resampling.Figures` asks for gets intervals,
and paired differences between models; images that do not count are in its `left_out`, (name, reason).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from relevit.data.benchmarks.timm_sets import is_timm_string
from relevit.data.classes import ClassMap
from relevit.data.masked_images import BUILTIN, open_masked
from relevit.data.sets import StreamSet
from relevit.errors import UserError
from relevit.evaluation.frozen.knn import knn
from relevit.evaluation.maps.insertion_deletion import insertion_deletion
from relevit.evaluation.maps.localization import localization
from relevit.evaluation.maps.perturbation import perturbation
from relevit.evaluation.maps.segmentation import segmentation
from relevit.evaluation.maps.sufficient_subsets import sufficient_subsets
from relevit.evaluation.sources import resolve

COMMON = ("batch_size", "seed", "progress")


class Measurement(NamedTuple):
    """A function and what it needs: samples with "masks", the "images" of a benchmark, or "train_and_test", two such sets (the one to
    train on is the option `train`)."""

    function: Callable[..., Any]
    needs: Literal["masks", "images", "train_and_test"]
    description: str

    @property
    def options(self) -> tuple[str, ...]:
        """The names of its own keyword options."""
        keywords = inspect.signature(self.function).parameters.values()
        return tuple(each.name for each in keywords if each.kind is each.KEYWORD_ONLY and each.name not in COMMON)


MEASUREMENTS: dict[str, Measurement] = {
    "segmentation": Measurement(
        segmentation, "masks", "pixel accuracy, mIoU and mAP of maps above their mean (the paper's Table 3), percent"
    ),
    "localization": Measurement(
        localization, "masks", "share of relevance on the object, pointing game, coverage of the object, percent"
    ),
    "perturbation": Measurement(
        perturbation,
        "images",
        "accuracy as pixels are removed by relevance, most or least relevant first (appendix N), percent",
    ),
    "insertion_deletion": Measurement(
        insertion_deletion, "images", "probability of the class as pixels come in or go by relevance (RISE), percent"
    ),
    "knn": Measurement(
        knn,
        "train_and_test",
        "R@1 and R@5 of nearest neighbours on frozen features (appendix M), percent; needs --train",
    ),
    "sufficient_subsets": Measurement(
        sufficient_subsets,
        "images",
        "least share of pixels that keeps a class's confidence, predicted or another (appendix A), percent",
    ),
}


def measurement(name: str, options: Mapping[str, Any] | None = None) -> Measurement:
    """The row of a name; raises UserError for one that is not in the table, and for options that it does not have."""
    if name not in MEASUREMENTS:
        known = "; ".join(f"{each} ({row.description})" for each, row in MEASUREMENTS.items())
        raise UserError(f"there is no test {name!r}; known are: {known}")
    row = MEASUREMENTS[name]
    unknown = [each for each in options or {} if each not in row.options]
    if unknown:
        raise UserError(f"{name} has no option {unknown[0]!r}; its options are {', '.join(row.options) or 'none'}")
    return row


def open_data(
    row: Measurement,
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
        return open_masked(source, masks, ignore=ignore, model=model, class_map=class_map), {}
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
