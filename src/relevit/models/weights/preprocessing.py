"""The preprocessing that belongs to a file of weights: what the user gives, else what the file tells, else timm's config."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from relevit.models.weights.options import INTERPOLATIONS, FileOptions
from relevit.models.weights.reading import Stored

_OPTIONS = (
    "args",
    "hyper_parameters",
    "hparams",
    "config",
    "cfg",
    "opt",
)  # under which training loops keep their options
PROCESSOR = "preprocessor_config.json"  # of transformers
FILTERS = {int(kind): kind.name.lower() for kind in Image.Resampling}  # by Pillow's numbers


def options_in(stored: Stored) -> dict[str, Any]:
    """The options of the training loop that are in the file, or in timm's args.yaml beside it; empty where there are none."""
    for key in _OPTIONS:
        value = stored.content.get(key)
        value = value if isinstance(value, Mapping) else getattr(value, "__dict__", None)
        if isinstance(value, Mapping) and value:
            return dict(value)
    beside = stored.home / "args.yaml"
    if beside.is_file():
        import yaml

        try:
            content = yaml.safe_load(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return dict(content) if isinstance(content, Mapping) else {}
    return {}


def image_size_in(options: Mapping[str, Any]) -> int | None:
    """The side of the input in a training loop's options, where it is a square."""
    for key in ("img_size", "image_size", "input_size"):
        value = options.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        if isinstance(value, list | tuple) and value and all(isinstance(side, int) for side in value):
            return int(value[-1]) if value[-1] > 0 else None
    return None


def preprocessing(
    stored: Stored, options: Mapping[str, Any], given: FileOptions, base: Mapping[str, Any], size: int
) -> tuple[dict[str, Any], str]:
    """Changes of timm's config `base` for an input of `size` pixels a side, and the sentence on what is used and where from."""
    used: dict[str, Any] = {}
    origins: dict[str, list[str]] = {}
    sources = {
        "as given": _given(given, size),
        "from the file's own options": dict(_of_options(options)),
        "from the preprocessor's config beside it": dict(_of_processor(stored.home, size)),
        "guessed, as timm has it for this architecture": {
            key: base[key] for key in ("mean", "std", "interpolation", "crop_pct")
        },
    }
    for origin, values in sources.items():
        for name, value in values.items():
            if name not in used:
                used[name] = value
                origins.setdefault(origin, []).append(name)
    mean, std = (" ".join(f"{number:.4g}" for number in used[name]) for name in ("mean", "std"))
    told = "; ".join(f"{', '.join(names)} {origin}" for origin, names in origins.items())
    short = math.floor(size / used["crop_pct"])
    note = f"preprocessing: short side {short}, {used['interpolation']}, crop {size} x {size}, mean {mean}, std {std} ({told})"
    return used, note.replace("crop_pct", "resize")


def _given(given: FileOptions, size: int) -> dict[str, Any]:
    named: dict[str, Any] = {"mean": given.mean, "std": given.std, "interpolation": given.interpolation}
    if given.resize is not None:
        named["crop_pct"] = size / given.resize
    return {name: value for name, value in named.items() if value is not None}


def _of_options(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What timm's train.py and its like call them; an empty or odd value tells nothing."""
    for name in ("mean", "std"):
        numbers = _three(options.get(name))
        if numbers:
            yield name, numbers
    if options.get("interpolation") in INTERPOLATIONS:
        yield "interpolation", options["interpolation"]
    share = options.get("crop_pct")
    if isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1:
        yield "crop_pct", float(share)


def _of_processor(folder: Path, size: int) -> Iterator[tuple[str, Any]]:
    """What transformers writes beside its models' weights."""
    path = folder / PROCESSOR
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError):
        return
    for name, key in (("mean", "image_mean"), ("std", "image_std")):
        numbers = _three(config.get(key))
        if numbers:
            yield name, numbers
    if config.get("resample") in FILTERS:
        yield "interpolation", FILTERS[config["resample"]]
    side = config.get("size")
    side = side.get("shortest_edge") or side.get("height") if isinstance(side, Mapping) else side
    if isinstance(side, int) and side >= size:
        yield "crop_pct", size / side


def _three(value: Any) -> tuple[float, ...] | None:
    if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(number, int | float) for number in value):
        return tuple(float(number) for number in value)
    return None
