"""What lies below the root of `relevit reproduce --data ROOT`: benchmarks, training pictures, masks, weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from relevit.data.benchmarks import BENCHMARKS, find_benchmarks
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.experiments.sources.models import PaperModel
from relevit.files import atomic_write

PLACES = "places.json"
IMAGENET_S, TRAIN, GTSEGS = "ImageNet-S", "ImageNet training pictures", "gtsegs_ijcv.mat"
PUBLISHED_MASKS, NEIGHBOURS = "published TokenCut masks", "k-NN sets"
_SEMI, _TRAIN = "train-semi-segmentation", ("train", "ILSVRC2012_img_train", "imagenet_train", "imagenet-train")
_DEPTH = 4  # of the folders that are looked through
_WNID = re.compile(r"n\d{8}")


def find_places(root: str, protocol: str, models: Sequence[PaperModel]) -> tuple[dict[str, str], dict[str, str]]:
    """Name to path of what is there, and name to the reason of what is not; nothing is opened.

    Beside the benchmarks (data/benchmarks): ImageNet-S (a folder with train-semi-segmentation), ImageNet's training pictures (a
    folder train, ILSVRC2012_img_train or imagenet-train of wnid folders), gtsegs_ijcv.mat, TokenCut's masks as published
    (a folder with files *_tokencut_bfs.pt in wnid folders), and sets for nearest neighbours (a folder knn with train and test).
    """
    place = Path(root).resolve()
    if not place.is_dir():
        raise UserError(f"--data {root} is no folder: name one with data sets, or builtin")
    discovery = find_benchmarks(place, protocol)
    found = {entry.name: str(entry.root) for entry in discovery.found if entry.name.split("/")[0] in BENCHMARKS}
    missing = {name: reason for name, reason in discovery.missing if name not in found}
    folders = _folders(place)
    more: dict[str, tuple[Callable[[Path], object], str]] = {  # what a folder of it has, and what else is said
        IMAGENET_S: (lambda f: (f / _SEMI).is_dir(), f"folder with {_SEMI}"),
        TRAIN: (lambda f: f.name in _TRAIN and _wnids(f), f"folder {' or '.join(_TRAIN)} of wnid folders"),
        GTSEGS: (lambda f: (f / GTSEGS).is_file(), f"file {GTSEGS}"),
        PUBLISHED_MASKS: (
            lambda f: any(
                each.name.endswith("_tokencut_bfs.pt") for first in _wnids(f)[:1] for each in first.iterdir()
            ),
            "wnid folders with *_tokencut_bfs.pt",
        ),
        NEIGHBOURS: (
            lambda f: f.name == "knn" and (f / "train").is_dir() and (f / "test").is_dir(),
            "folder knn with train and test of class folders",
        ),
    }
    for name, (has_it, words) in more.items():
        folder = next(filter(has_it, folders), None)
        if folder is None:
            missing[name] = f"no {words} below {root}"
        else:
            found[name] = str(folder / GTSEGS if name == GTSEGS else folder)
    for model in models:
        if model.need is not None and model.file is None:
            missing[model.need] = f"timm has no such weights: put the file {model.weights} into the folder --weights"
    return found, missing


def write_places(out: str | Path, found: Mapping[str, str], models: Sequence[PaperModel]) -> None:
    """Where jobs find data and weights: OUT/places.json. Jobs know names alone, so that data may be moved."""
    weights = {model.name: model.file for model in models if model.file is not None}
    content = {"data": dict(found), "weights": weights}
    atomic_write(Path(out) / PLACES, json.dumps(content, indent=1) + "\n")


def _places(folder: Path) -> dict[str, dict[str, str]]:
    return json.loads((folder / PLACES).read_text(encoding="utf-8"))


def data_path(folder: Path, name: str) -> Path:
    """Where data of that name lies; UserError if it is not known."""
    if not has(folder, name):
        raise UserError(f"{name} is not in {folder / PLACES}: start relevit reproduce again")
    return Path(_places(folder)["data"][name])


def has(folder: Path, name: str) -> bool:
    """Whether there is data of that name."""
    return name in _places(folder)["data"]


def weights_path(folder: Path, model: str) -> str | None:
    """The file of a model's weights; None for timm's own."""
    return _places(folder)["weights"].get(model)


def open_set(folder: Path, name: str, protocol: str) -> ImageSet:
    """The benchmark of that name, opened."""
    place = data_path(folder, name)
    for entry in find_benchmarks(place, protocol).found:
        if entry.name == name:
            return entry.open()
    raise UserError(f"{place} is no {name} any more: start relevit reproduce again")


def _folders(root: Path) -> list[Path]:
    """The root and the folders below it, nearest first; wnid folders are not entered."""
    found, level = [root], [root]
    for _ in range(_DEPTH):
        level = [
            folder
            for parent in level
            for folder in sorted(parent.iterdir())
            if folder.is_dir() and not folder.name.startswith((".", "__")) and not _WNID.fullmatch(folder.name)
        ]
        found += level
    return found


def _wnids(folder: Path) -> list[Path]:
    """The wnid folders in a folder, by name."""
    return sorted(each for each in folder.iterdir() if _WNID.fullmatch(each.name) and each.is_dir())
