"""Masks of any format as the folders that fine-tuning takes: images/CLASS/NAME, masks/CLASS/NAME.png, ignore/...

OUT/.relevit/work/           the three folders until all is converted, then they go to OUT in one step each
OUT/.relevit/rows/*.json     what became of each entry, a file for every few of them
OUT/.relevit/finished.json   the numbers, written last
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from relevit.data.annotations import Entry, FaultyMaskError, Foreground, Listing, list_masks
from relevit.data.checks import Progress, fault_of_size
from relevit.data.image_map import Steps, in_batches, map_images, threads
from relevit.errors import Fault, FaultsError, UserError, reason_of
from relevit.files import atomic_write
from relevit.folders import HIDDEN, OwnedFolder
from relevit.images import read_image
from relevit.processes import Processes

KINDS = ("images", "masks", "ignore")
WORK, ROWS, FINISHED = f"{HIDDEN}/work", f"{HIDDEN}/rows", f"{HIDDEN}/finished.json"
_PART = 16  # entries that one file of rows tells of


class Converted(NamedTuple):
    """What was written: the number of images, of their classes, of those with ignored pixels; how many were left out by
    reason; the faults of those that are not there; notes of the format's reader."""

    images: int
    classes: int
    ignored: int
    left_out: dict[str, int]
    faults: list[Fault]
    notes: list[str]


# What reading an entry in full gives: its foreground, what is wrong with it, or why it is to be left out.
Examined = Foreground | Fault | str


class Part(NamedTuple):
    """Entries that follow each other: what is done at a time."""

    number: int
    entries: Sequence[Entry]


class Row(NamedTuple):
    """What became of an entry: whether it was written, and with ignored pixels; else why not."""

    written: bool
    ignored: bool
    left_out: str
    fault: Any  # a Fault, or the list that JSON makes of it


def convert_masks(
    format: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    class_list: Any = None,
    protocol: str = "standard",
    min_pixels: int | None = None,
    copy: bool = False,
    skip_bad: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> Converted:
    """Read masks of `format` (one of masks.formats.FORMATS) and write out/images, out/masks and out/ignore.

    Masks are PNG of 0 and 255. out/ignore has a PNG for each image with pixels that count for neither side, none where
    `protocol` is "paper", in which they count as background (the published setup). Images are symbolic links, or copies
    with `copy`. Masks of fewer than `min_pixels` object pixels are left out; None: see `fewest_pixels`.

    Every picture and mask is read in full. Raises FaultsError with all faults; nothing is in `out` then. With
    `skip_bad`, bad ones are left out. Raises UserError where `out` holds anything or lies in `images`, or nothing is left
    to write. The same call goes on where it was stopped; several processes (torchrun) share the work.
    """
    _owned(out := Path(os.path.abspath(out)), None)
    if images is not None and out.resolve().is_relative_to(Path(images).resolve()):
        raise UserError(f"{out} lies in the folder of pictures {images}: choose an --out of its own, beside it.")
    least = fewest_pixels(format, min_pixels)
    listing = list_masks(format, Path(source), None if images is None else Path(images), class_list)
    names = hashlib.blake2b("\n".join(entry.name for entry in listing.entries).encode(), digest_size=8).hexdigest()
    choices = {"protocol": protocol, "min_pixels": least, "copy": copy, "skip_bad": skip_bad}
    folder = _owned(out, {"format": format, "entries": len(listing.entries), "names": names, **choices})
    parts = [Part(number, part) for number, part in enumerate(in_batches(listing.entries, _PART))]

    def examined(part: Part, _: None) -> None:
        rows = [_convert(out / WORK, entry, least, protocol, copy) for entry in part.entries]
        content = {"inputs": _inputs(part), "rows": [row._asdict() for row in rows]}
        atomic_write(_rows_file(out, part), json.dumps(content, indent=1) + "\n")

    sizes = iter([len(part.entries) for part in parts])

    def count(parts_done: int) -> None:
        if progress is not None:
            progress(sum(islice(sizes, parts_done)), len(listing.entries))

    processes, existed = Processes("cpu"), out.exists()
    processes.wait()  # all have looked at the folder as it was
    with folder:
        processes.wait()  # the first one holds it
        with threads(workers) as pool:
            steps = Steps[Part](is_done=lambda part: _is_done(out, part), write=examined)
            map_images([[part] for part in parts], steps, pool, processes, advance=count)
        ended = processes.of_main(_publish(folder, listing, parts, source, skip_bad) if processes.is_main else None)
    if not isinstance(ended, Converted):
        if processes.is_main and not existed:
            out.rmdir()
        raise FaultsError(ended) if isinstance(ended, list) else UserError(ended)
    return ended


def _owned(out: Path, settings: Mapping[str, Any] | None) -> OwnedFolder:
    return OwnedFolder(out, "relevit convert", settings, result=FINISHED)


def _convert(work: Path, entry: Entry, least: int, protocol: str, copy: bool) -> Row:
    """Read an entry and write its files below `work`; what an earlier call wrote of it goes."""
    found = examine(entry, least)
    if not isinstance(found, Foreground):
        _write(work, entry, None, None, copy)
        return Row(False, False, found if isinstance(found, str) else "", found if isinstance(found, Fault) else None)
    ignore = None if protocol == "paper" else found.ignore
    _write(work, entry, found.mask, ignore, copy)
    return Row(True, ignore is not None, "", None)


def _publish(
    folder: OwnedFolder, listing: Listing, parts: Sequence[Part], source: Any, skip_bad: bool
) -> Converted | list[Fault] | str:
    """Put what was written in its place; or, where it is not to be used, remove it and say why."""
    out = folder.path
    rows = [Row(**row) for part in parts for row in json.loads(_rows_file(out, part).read_text())["rows"]]
    faults = [*listing.faults, *(Fault(*row.fault) for row in rows if row.fault is not None)]
    written = [entry for entry, row in zip(listing.entries, rows, strict=True) if row.written]
    left_out = dict(Counter(row.left_out for row in rows if row.left_out))
    if not written or (faults and not skip_bad):
        for place in (WORK, ROWS):
            shutil.rmtree(out / place, ignore_errors=True)
        folder.forget()
        return faults or f"Nothing is left of {source}: " + "; ".join(f"{n} {why}" for why, n in left_out.items())
    for kind in KINDS:
        if (out / WORK / kind).exists():
            os.rename(out / WORK / kind, out / kind)
    shutil.rmtree(out / WORK, ignore_errors=True)
    ignored = sum(row.ignored for row in rows)
    classes = len({entry.class_name for entry in written})
    figures: dict[str, Any] = {"images": len(written), "classes": classes, "ignored": ignored, "left_out": left_out}
    atomic_write(out / FINISHED, json.dumps(figures, indent=1) + "\n")
    return Converted(**figures, faults=faults, notes=listing.notes)


def _rows_file(out: Path, part: Part) -> Path:
    return out / ROWS / f"{part.number:06d}.json"


def _is_done(out: Path, part: Part) -> bool:
    """Whether a part's files were written, from pictures and masks that are as they were then."""
    try:
        return json.loads(_rows_file(out, part).read_text())["inputs"] == _inputs(part)
    except (OSError, ValueError, KeyError):
        return False


def _inputs(part: Part) -> str:
    """A hash of sizes and times of a part's pictures and masks."""
    digest = hashlib.blake2b(digest_size=16)
    for entry in part.entries:
        for path in (entry.image, entry.source):
            status = os.stat(path) if os.path.exists(path) else None
            told = (status.st_size, status.st_mtime_ns) if status is not None else None
            digest.update(f"{path}\0{told}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def fewest_pixels(format: str, min_pixels: int | None) -> int:
    """The least object pixels of a mask that is taken: `min_pixels`, by default 520 for the published TokenCut masks and
    any number for annotated ones (protocol, "Automatic masks": the paper's rule is for automatic masks only)."""
    if min_pixels is not None:
        return min_pixels
    return 520 if format == "tokencut" else 0


def examine(entry: Entry, min_pixels: int = 0) -> Examined:
    """Read an entry's picture and mask in full and check them."""
    try:
        picture = read_image(entry.image)
    except UserError as error:
        return Fault("unreadable image", str(entry.image), reason_of(error))
    try:
        found = entry.read()
    except FaultyMaskError as error:
        return error.fault
    except UserError as error:
        return Fault("unreadable mask", str(entry.source), reason_of(error))
    fault = fault_of_size(found.mask, entry.source, entry.image, picture)
    if fault is not None:
        return fault._replace(detail=fault.detail.replace("its image", f"its image {entry.image}"))
    if found.left_out:
        return found.left_out
    pixels = int(found.mask.sum())
    if pixels < min_pixels:
        return f"of fewer than {min_pixels} pixels"
    return found if pixels else Fault("empty mask", str(entry.source), f"of {entry.name}")


def _write(folder: Path, entry: Entry, mask: np.ndarray | None, ignore: np.ndarray | None, copy: bool) -> None:
    image = folder / "images" / entry.name
    image.unlink(missing_ok=True)
    if mask is not None and copy:
        with open(entry.image, "rb") as opened:
            atomic_write(image, lambda file: shutil.copyfileobj(opened, file))
    elif mask is not None:
        image.parent.mkdir(parents=True, exist_ok=True)
        image.symlink_to(os.path.abspath(entry.image))
    for kind, plane in (("masks", mask), ("ignore", ignore)):
        path = (folder / kind / entry.name).with_suffix(".png")
        if plane is None:
            path.unlink(missing_ok=True)
        else:
            picture = Image.fromarray(plane.astype(np.uint8) * 255)
            atomic_write(path, partial(picture.save, format="PNG"))
