"""transformers' image processors as evaluation views: `preprocessor_config.json` to a view's numbers, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from PIL import Image

from relevit.errors import UserError
from relevit.models.families.family import pair
from relevit.models.weights.preprocessing import FILTERS


def as_view(processor: Mapping[str, Any], size: tuple[int, int], any_size: bool = False) -> dict[str, Any]:
    """The numbers of an evaluation view (`data_config`) of a processor's.

    size: height and width of the images that the model is built for. A processor that gives others is followed where the model
    takes `any_size`; else its resizing is kept in proportion.
    """
    if not processor.get("do_rescale", True) or abs(float(processor.get("rescale_factor") or 1 / 255) - 1 / 255) > 1e-9:
        raise UserError(
            "the image processor does not scale pixels by 1/255, which no view here does: normalise by hand"
        )
    crops = bool(processor.get("do_center_crop")) and processor.get("crop_size") is not None
    resized, shortest = _size(processor.get("size") or {}, size)
    out = _size(processor["crop_size"], size)[0] if crops else resized if not shortest else size
    share = out[0] / resized[0] if processor.get("do_resize", True) else 1.0
    if not any_size:
        out = size
    normalises = processor.get("do_normalize", True)
    return {
        "input_size": (3, *out),
        "mean": tuple(processor.get("image_mean") or (0.5,) * 3) if normalises else (0.0,) * 3,
        "std": tuple(processor.get("image_std") or (0.5,) * 3) if normalises else (1.0,) * 3,
        "interpolation": FILTERS[int(processor.get("resample") or Image.Resampling.BILINEAR)],
        "crop_pct": _share(out[0], share),
        "crop_mode": "center" if shortest else "squash",
        "crop_rounds": "down",
    }


def as_processor(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a processor that does what a view does; what the view says nothing of is as `given`."""
    _, height, width = config["input_size"]
    before = {"height": math.floor(height / config["crop_pct"]), "width": math.floor(width / config["crop_pct"])}
    squashed = config.get("crop_mode", "center") == "squash"
    return {
        "image_processor_type": "ViTImageProcessor" if squashed else "CLIPImageProcessor",
        **{key: value for key, value in given.items() if isinstance(value, str | int | float | bool | list | dict)},
        "do_resize": True,
        "size": before if squashed else {"shortest_edge": before["height"]},
        "resample": int(Image.Resampling[config["interpolation"].upper()]),
        "do_center_crop": before != {"height": height, "width": width} or not squashed,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config["mean"]),
        "image_std": list(config["std"]),
    }


def _size(given: Any, default: tuple[int, int]) -> tuple[tuple[int, int], bool]:
    """Height and width, and whether they are those of the short side."""
    if isinstance(given, int | tuple | list):
        return pair(given), False
    if given.get("shortest_edge"):
        return pair(given["shortest_edge"]), True
    if given.get("height") and given.get("width"):
        return (int(given["height"]), int(given["width"])), False
    if given:
        raise UserError(f"the image processor resizes to {dict(given)}, which no view here does: resize by hand")
    return default, False


def _share(size: int, share: float) -> float:
    """A share for which size / share, rounded down, is the whole number that it stands for."""
    before = round(size / share)
    return size / before if math.floor(size / (size / before)) == before else size / (before + 1e-6)
