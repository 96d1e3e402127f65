"""Finding benchmarks below a folder: by the usual names of their folders, confirmed by their layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from relevit.data.benchmarks.class_folders import own_sets
from relevit.data.benchmarks.table import BENCHMARKS, check_protocol
from relevit.data.benchmarks.tar_files import has_tars
from relevit.data.composition.composed_sets import CONFIG
from relevit.data.listing import has_image, holds_classes, subfolders
from relevit.data.sets import ImageSet
from relevit.errors import UserError

_DEPTH = 3  # folders are looked at down to so many below the root
_CLASS = re.compile(r"n\d{8}|\d{1,4}|0\d_.*")  # names of class folders, which are not entered
_TRAINING = ("train", "training")


@dataclass(frozen=True)
class Found:
    """A benchmark that was found: its name, the folder, and a function that opens it (and lists its images only then)."""

    name: str
    root: Path
    open: Callable[[], ImageSet]


@dataclass(frozen=True)
class Discovery:
    """What was found below a folder, and which benchmarks were not, each with the reason."""

    found: list[Found] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)


def find_benchmarks(root: str | Path, protocol: str = "standard") -> Discovery:
    """The benchmarks below a folder, or the one that it is itself; nothing is opened.

    A folder counts when its name is one of a benchmark's usual names (BENCHMARKS; spelling and separators do not matter) and its layout
    is the benchmark's. Of several the first is taken, the nearest to the root. Other folders of class folders directly in `root` follow under their
    own names, and sets made by `relevit compose` as FOLDER/SET; where nothing at all is found and `root` is a folder of class folders, or of tar files, it is offered itself.

    `protocol`: "standard" or "paper" (protocol of evaluation: candidates of ImageNet-A and -R, labels and border of ObjectNet).
    Raises UserError where `root` is no folder, or for an unknown protocol.
    """
    check_protocol(protocol)
    root = Path(root)
    root = root if root.name not in ("", "..") else root.resolve()
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: give the folder that holds the benchmarks")
    places: dict[str, list[Path]] = {}
    for folder in _folders(root, _DEPTH):
        places.setdefault(spelling(folder.name), []).append(folder)
    result = Discovery()
    taken: list[Path] = []
    refused: list[Path] = []
    for name, benchmark in BENCHMARKS.items():
        reasons: list[str] = []
        folders = [folder for each in (*benchmark.folders, *benchmark.generic) for folder in places.get(each, [])]
        folders.sort(key=lambda path: len(path.parts))
        for number, folder in enumerate(folders):
            generic = spelling(folder.name) in benchmark.generic
            try:
                if generic and benchmark.confirm is not None:
                    benchmark.confirm(folder)
                sets = benchmark.sets(folder, protocol)
            except UserError as error:
                if not generic:
                    reasons.append(f"there is a folder {folder}, but {error}")
                    refused.append(folder)
                continue
            result.found.extend(Found(each, folder, opener) for each, opener in sets.items())
            absent = [each for each in benchmark.complete if each not in sets]
            if absent:
                told = f"{len(absent)} of its {len(benchmark.complete)} sets are not in {folder}, such as {absent[0]}"
                result.missing.append((name, told))
            for other in folders[number + 1 :]:
                if folder not in other.parents and spelling(other.name) not in benchmark.generic:
                    result.missing.append((name, f"{other} is left out: {folder} is taken"))
            taken.append(folder)
            break
        else:
            usual = ", ".join(benchmark.folders[:3])
            result.missing.append((name, reasons[0] if reasons else f"no folder has one of its names ({usual})"))
    _own_sets(root, taken, refused, result)
    return result


def spelling(name: str) -> str:
    """A folder's name in small letters and digits alone, by which the usual names are compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """A folder and those below it, the nearer first, then by name; class folders are left out."""
    level = [root]
    for _ in range(depth + 1):
        yield from level
        level = [path / name for path in level for name in _entered(path)]


def _entered(folder: Path) -> list[str]:
    return [name for name in subfolders(folder) if not _CLASS.fullmatch(name)]


def _own_sets(root: Path, taken: list[Path], refused: list[Path], result: Discovery) -> None:
    """Adds the sets of one's own: class folders, and what `relevit compose` has made."""
    names = {found.name for found in result.found}

    def add(name: str, folder: Path) -> None:
        for each, opener in own_sets(name, folder).items():
            if each not in names:
                names.add(each)
                result.found.append(Found(each, folder, opener))

    if (root / CONFIG).is_file():
        return add(root.name, root)
    for name in subfolders(root):
        folder = root / name
        if folder in refused or any(folder in (each, *each.parents) or each in folder.parents for each in taken):
            continue
        if not (folder / CONFIG).is_file() and (has_image(folder) or not holds_classes(folder)):
            continue
        if name.lower() in _TRAINING:
            result.missing.append(
                (name, f"{folder} holds training images, no benchmark: name it in a YAML of paths to measure on it")
            )
        else:
            add(name, folder)
    if not result.found and root not in refused and (holds_classes(root) or has_tars(root)):
        add(root.name, root)
