"""What a reader of a format returns, and the search of masks in class folders that most formats share."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from relevit.errors import UserError
from relevit.images import EXTENSIONS, list_images


class Foreground(NamedTuple):
    """An object's pixels, and those that count for neither side (None: there are none).

    left_out: why the mask is not meant to be used, though nothing is wrong with it; usually empty.
    """

    mask: Bool[np.ndarray, "height width"]
    ignore: Bool[np.ndarray, "height width"] | None = None
    left_out: str = ""


class Entry(NamedTuple):
    """One picture with the mask of one class.

    class_name: the class folder. name: CLASS/.../PICTURE with the picture's ending, by which the sample is to be known.
    image: the picture's file. source: the file that the mask comes from. read: reads the mask; raises UserError, or
    FaultyMaskError where the file is readable but wrong.
    """

    class_name: str
    name: str
    image: Path
    source: Path
    read: Callable[[], Foreground]


class Problem(NamedTuple):
    """Something wrong: one of the kinds of relevit.data.checks, the file or folder, and details."""

    kind: str
    file: str
    detail: str = ""


class Listing(NamedTuple):
    """Entries, sorted by name; problems that were found without reading masks; notes on what was left out or skipped."""

    entries: list[Entry]
    problems: list[Problem]
    notes: list[str]


class FaultyMaskError(UserError):
    """A mask's file can be read but its content is wrong; `.problem` tells the kind."""

    def __init__(self, kind: str, path: Path, detail: str) -> None:
        super().__init__(f"{path}: {kind}: {detail}.")
        self.problem = Problem(kind, str(path), detail)


def in_class_folders(
    source: Path,
    images: Path | None,
    endings: Collection[str],
    read: Callable[[Path], Foreground],
    only: Collection[str] | None = None,
    suffix: str = "",
    flat: bool = False,
) -> Listing:
    """Masks source/CLASS/.../NAME{suffix}{ending} and pictures images/CLASS/.../NAME.*, paired by name.

    only: the classes that are wanted. flat: pictures may also lie in `images` itself, without class folders. Pictures
    without a mask are left alone. Accents may be composed differently in the two trees.
    """
    folder = folder_of(source)
    root = images if images is not None else folder
    together = root.samefile(folder)
    entries: list[Entry] = []
    problems: list[Problem] = []
    wanted = None if only is None else {plain(name) for name in only}
    homes = {plain(path.name): path for path in root.iterdir() if path.is_dir()}
    loose = _by_stem([path for path in sorted(root.iterdir()) if _is_picture(path)], root) if flat else {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            if path.suffix.lower() in endings and not together:
                problems.append(Problem("unknown class", str(path), "it lies in no class folder"))
            continue
        if wanted is not None and plain(path.name) not in wanted:
            continue
        masks = list_images(path, endings)
        home = homes.get(plain(path.name))
        mine = {mask.resolve() for mask in masks} if together else set()
        files = [file for file in list_images(home) if file.resolve() not in mine] if home is not None else []
        pictures = {**loose, **_by_stem(files, home or root)}
        if not masks:
            problems.append(Problem("no masks", str(path)))
        elif not pictures:
            problems.append(Problem("no images", str(root / path.name), f"there are {len(masks)} masks for it"))
        else:
            for mask in masks:
                stem = stem_of(mask.relative_to(path))
                found = pictures.get(stem.removesuffix(suffix) if stem.endswith(suffix) else stem, [])
                if len(found) == 1:
                    relative = found[0].relative_to(home) if home and found[0].is_relative_to(home) else found[0].name
                    name = (PurePosixPath(path.name) / PurePosixPath(relative)).as_posix()
                    entries.append(Entry(path.name, name, found[0], mask, partial(read, mask)))
                elif found:
                    names = ", ".join(file.name for file in found)
                    problems.append(Problem("one mask for several images", str(mask), names))
                else:
                    problems.append(Problem("missing image", str(mask), f"no picture of this name in {home or root}"))
    return once(entries, problems, [])


def folder_of(source: Path) -> Path:
    """The source itself, which must be a folder here."""
    if not source.is_dir():
        raise UserError(f"{source} is not a folder: give the folder of masks.")
    return source


def class_folder(name: str, number: int) -> str:
    """A class's name as that of one folder: no slashes, no leading dots or blanks; its number where nothing is left."""
    return name.replace("/", "-").strip().lstrip(".").strip() or str(number)


def once(entries: list[Entry], problems: list[Problem], notes: list[str]) -> Listing:
    """A listing in the order of names, in which no two masks go by the same name but for the ending."""
    first: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: (entry.name, str(entry.source))):
        other = first.setdefault(stem_of(Path(entry.name)), entry)
        if other is not entry:
            detail = f"{other.source} is for {other.name}, too"
            problems.append(Problem("several masks for one image", str(entry.source), detail))
    return Listing(list(first.values()), problems, notes)


def plain(name: str) -> str:
    """A name in one form, however the file system composes accents."""
    return unicodedata.normalize("NFC", name)


def stem_of(relative: Path) -> str:
    """A relative name without its ending."""
    return plain(relative.with_suffix("").as_posix())


def _by_stem(files: list[Path], root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(stem_of(file.relative_to(root)), []).append(file)
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
