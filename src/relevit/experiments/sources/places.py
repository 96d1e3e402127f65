"""What lies below the root of `relevit reproduce --data ROOT`: benchmarks, training pictures, masks, weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from relevit.data.benchmarks import BENCHMARKS, find_benchmarks
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.experiments.sources.models import PaperModel, files_of
from relevit.files import atomic_write

IMAGENET_S, TRAIN, GTSEGS, PUBLISHED_MASKS, NEIGHBOURS = (
    "ImageNet-S",
    "ImageNet training pictures",
    "gtsegs_ijcv.mat",
    "published TokenCut masks",
    "k-NN sets",
)
PLACES = "places.json"
_SEMI = "train-semi-segmentation"
_DEPTH = 4
_TRAIN = ("train", "ILSVRC2012_img_train", "imagenet_train", "imagenet-train")


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
    folders = list(_folders(place))
    wanted = {
        IMAGENET_S: next((f for f in folders if (f / _SEMI).is_dir()), None),
        TRAIN: next((f for f in folders if f.name in _TRAIN and _has_wnids(f)), None),
        GTSEGS: next((f / GTSEGS for f in folders if (f / GTSEGS).is_file()), None),
        PUBLISHED_MASKS: next((f for f in folders if _has_published_masks(f)), None),
        NEIGHBOURS: next(
            (f for f in folders if f.name == "knn" and (f / "train").is_dir() and (f / "test").is_dir()), None
        ),
    }
    expected = {
        IMAGENET_S: f"no folder with {_SEMI} below {root}",
        TRAIN: f"no folder {' or '.join(_TRAIN)} of wnid folders below {root}",
        GTSEGS: f"no file {GTSEGS} below {root}",
        PUBLISHED_MASKS: f"no wnid folders with *_tokencut_bfs.pt below {root}",
        NEIGHBOURS: f"no folder knn with train and test of class folders below {root}",
    }
    for name, path in wanted.items():
        if path is None:
            missing[name] = expected[name]
        else:
            found[name] = str(path)
    for model in models:
        if model.need is not None and model.file is None:
            missing[model.need] = f"timm has no such weights: put the file {model.weights} into the folder --weights"
    return found, missing


def write_places(out: str | Path, found: Mapping[str, str], models: Sequence[PaperModel]) -> None:
    """Where jobs find data and weights: OUT/places.json. Jobs know names alone, so that data may be moved."""
    content = {"data": dict(found), "weights": dict(files_of(models))}
    atomic_write(Path(out) / PLACES, json.dumps(content, indent=1) + "\n")


def data_path(folder: Path, name: str) -> Path:
    """Where data of that name lies; UserError if it is not known."""
    known = json.loads((folder / PLACES).read_text(encoding="utf-8"))["data"]
    if name not in known:
        raise UserError(f"{name} is not in {folder / PLACES}: start relevit reproduce again")
    return Path(known[name])


def has(folder: Path, name: str) -> bool:
    """Whether there is data of that name."""
    return name in json.loads((folder / PLACES).read_text(encoding="utf-8"))["data"]


def weights_path(folder: Path, model: str) -> str | None:
    """The file of a model's weights; None for timm's own."""
    return json.loads((folder / PLACES).read_text(encoding="utf-8"))["weights"].get(model)


def open_set(folder: Path, name: str, protocol: str) -> ImageSet:
    """The benchmark of that name, opened."""
    place = data_path(folder, name)
    for entry in find_benchmarks(place, protocol).found:
        if entry.name == name:
            return entry.open()
    raise UserError(f"{place} is no {name} any more: start relevit reproduce again")


def _folders(root: Path, depth: int = _DEPTH) -> list[Path]:
    """The root and the folders below it, nearest first; wnid folders are not entered."""
    found, level = [root], [root]
    for _ in range(depth):
        level = [
            folder
            for parent in level
            for folder in sorted(parent.iterdir())
            if folder.is_dir() and not folder.name.startswith((".", "__")) and not _is_wnid(folder.name)
        ]
        found += level
    return found


def _is_wnid(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def _has_wnids(folder: Path) -> bool:
    return any(_is_wnid(each.name) and each.is_dir() for each in folder.iterdir())


def _has_published_masks(folder: Path) -> bool:
    first = next((each for each in sorted(folder.iterdir()) if _is_wnid(each.name) and each.is_dir()), None)
    return first is not None and any(each.name.endswith("_tokencut_bfs.pt") for each in first.iterdir())
