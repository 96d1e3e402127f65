"""Which mask belongs to which image: the file of the same relative name, whatever its ending and its accents' composition."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from relevit.data.listing import list_images


class Pairing(NamedTuple):
    """Masks and images that belong together.

    images_of: every mask with the names of its images, sorted: none, one, or several that would share it.
    mask_of: the mask of each image that has one.
    """

    images_of: dict[Path, list[str]]
    mask_of: dict[str, Path]


def pair(
    names: Iterable[str], masks: Iterable[Path], root: Path, suffix: str = "", flat: Iterable[str] = ()
) -> Pairing:
    """Match images to masks by their relative names without endings.

    Args:
        names: of images, relative to their folder.
        masks: files below `root`; of two that differ in their ending alone, an image has the last.
        suffix: what masks have at the end of their names that images have not, such as "_mask"; a mask without it is
            matched by its whole name.
        flat: names of images that lie in no class folder, which are matched by the last part of a mask's name.
    """
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(stem_of(name), []).append(name)
    loose: dict[str, list[str]] = {}
    for name in flat:
        loose.setdefault(stem_of(name), []).append(name)
    pairing = Pairing({}, {})
    for path in masks:
        own = stem_of(path.relative_to(root)).removesuffix(suffix)
        found = by_stem.get(own) or loose.get(own.rpartition("/")[2], [])
        pairing.images_of[path] = sorted(found)
        pairing.mask_of.update(dict.fromkeys(found, path))
    return pairing


def pair_folder(names: Iterable[str], masks: Path) -> Pairing:
    """As `pair`, with all PNG files below a folder as masks. Raises UserError where there is no such folder."""
    return pair(names, list_images(masks, {".png"}), masks)


def without_masks(names: Iterable[str]) -> list[str]:
    """Of a folder's pictures, those that are no masks: NAME.png beside NAME.jpg is the mask of that."""
    listed = list(names)
    pictures = {stem_of(name) for name in listed if not _is_png(name)}
    return [name for name in listed if not _is_png(name) or stem_of(name) not in pictures]


def stem_of(name: str | PurePosixPath | Path) -> str:
    """A relative name without its ending, the same however the file system composes accents."""
    return plain(PurePosixPath(name).with_suffix("").as_posix())


def plain(name: str) -> str:
    """A name in one form: those that look the same are the same, whichever way accents are composed."""
    return unicodedata.normalize("NFC", name)


def _is_png(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() == ".png"
