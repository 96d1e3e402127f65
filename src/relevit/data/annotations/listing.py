"""What a reader of a format returns, and the search of masks in class folders that most formats share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from relevit.data.listing import image_names, is_visible, list_images
from relevit.data.pairing import Pairing, pair, plain, stem_of
from relevit.errors import Fault, Kind, UserError
from relevit.images import EXTENSIONS


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


class Listing(NamedTuple):
    """Entries, sorted by name; faults that were found without reading masks; notes on what was left out or skipped."""

    entries: list[Entry]
    faults: list[Fault]
    notes: list[str]


class FaultyMaskError(UserError):
    """A mask's file can be read but its content is wrong; `.fault` tells what."""

    def __init__(self, kind: Kind, path: Path, detail: str) -> None:
        super().__init__(f"{path}: {kind}: {detail}.")
        self.fault = Fault(kind, str(path), detail)


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
    faults: list[Fault] = []
    wanted = None if only is None else {plain(name) for name in only}
    homes = {plain(path.name): path for path in root.iterdir() if path.is_dir()}
    loose = [path.name for path in sorted(root.iterdir()) if flat and _is_picture(path)]
    for path in sorted(folder.iterdir()):
        if not is_visible(path.name):
            continue
        if not path.is_dir():
            if path.suffix.lower() in endings and not together:
                faults.append(Fault("unknown class", str(path), "it lies in no class folder"))
            continue
        if wanted is not None and plain(path.name) not in wanted:
            continue
        masks, home = list_images(path, endings), homes.get(plain(path.name))
        mine = {mask.resolve() for mask in masks} if together else set()
        inside = (
            [name for name in image_names(home) if not mine or (home / name).resolve() not in mine]
            if home is not None
            else []
        )
        if not masks:
            faults.append(Fault("no masks", str(path)))
            continue
        if not inside and not loose:
            faults.append(Fault("no images", str(root / path.name), f"there are {len(masks)} masks for it"))
            continue
        own = set(inside)
        for mask, name in matched(pair(inside, masks, path, suffix, loose), home or root, faults):
            file = home / name if home is not None and name in own else root / name
            entries.append(Entry(path.name, f"{path.name}/{name}", file, mask, partial(read, mask)))
    return once(entries, faults, [])


def matched(pairing: Pairing, images: Path, faults: list[Fault]) -> Iterator[tuple[Path, str]]:
    """Each mask with the name of its picture; a fault for every mask of no picture, or of several."""
    for mask, names in pairing.images_of.items():
        if len(names) == 1:
            yield mask, names[0]
        elif names:
            faults.append(Fault("one mask for several images", str(mask), ", ".join(names)))
        else:
            faults.append(Fault("missing image", str(mask), f"no picture of this name in {images}"))


def folder_of(source: Path) -> Path:
    """The source itself, which must be a folder here."""
    if not source.is_dir():
        raise UserError(f"{source} is not a folder: give the folder of masks.")
    return source


def class_folder(name: str, number: int) -> str:
    """A class's name as that of one folder: no slashes, no leading dots or blanks; its number where nothing is left."""
    return name.replace("/", "-").strip().lstrip(".").strip() or str(number)


def once(entries: list[Entry], faults: list[Fault], notes: list[str]) -> Listing:
    """A listing in the order of names, in which no two masks go by the same name but for the ending."""
    first: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: (entry.name, str(entry.source))):
        other = first.setdefault(stem_of(Path(entry.name)), entry)
        if other is not entry:
            detail = f"{other.source} is for {other.name}, too"
            faults.append(Fault("several masks for one image", str(entry.source), detail))
    return Listing(list(first.values()), faults, notes)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and is_visible(path.name) and path.is_file()
