"""From what is known of every image to what the user gets: the folder of masks, masks.csv and the contact sheet.

All of it follows from the images' states, the override folder and the thresholds; it is the same whatever was there before.
A mask in the folder that differs from what was put there is never touched: it was changed by hand.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from relevit.data.listing import list_images
from relevit.data.pairing import plain
from relevit.errors import UserError
from relevit.files import atomic_write
from relevit.folders import HIDDEN
from relevit.images import read_mask
from relevit.masking.contact_sheet import Entry, mask_tile, write_sheets
from relevit.masking.refinement import NO_OBJECT, OBJECT
from relevit.masking.run.state import UNREADABLE, Record, known_names, mask_png, read_part, read_record

TOO_SMALL, LOW, OVERRIDE, EXCLUDED = "too small", "low confidence", "override", "excluded"
OUTCOMES = (OBJECT, OVERRIDE, NO_OBJECT, TOO_SMALL, LOW, EXCLUDED, UNREADABLE)
SHEET, TABLE = "contact_sheet.html", "masks.csv"


class MaskRow(NamedTuple):
    """A row of masks.csv. A mask was written where `outcome` is "object" or "override"; confidence and the figures are
    None where the mask is the user's own or the image could not be read."""

    file: str
    outcome: str
    confidence: float | None = None
    eigengap: float | None = None
    agreement: float | None = None
    share: float | None = None
    border: float | None = None
    pixels: int | None = None
    note: str = ""


def mask_name(name: str) -> str:
    """The mask's name for an image's: the same with the ending .png."""
    return str(PurePosixPath(name).with_suffix(".png"))


def find_overrides(folder: Path, sizes: Mapping[str, tuple[int, int]]) -> tuple[dict[str, Path], list[str]]:
    """The user's own masks, by the mask's relative name, and those that belong to no image.

    sizes: mask name -> (width, height) of the image. Raises UserError that names every mask which cannot be read, has
    another size than its image, or no object.
    """
    found: dict[str, Path] = {}
    faults = []
    known = {plain(name): name for name in sizes}
    for path in list_images(folder):
        name = mask_name(path.relative_to(folder).as_posix())
        other = found.setdefault(known.get(plain(name), name), path)  # accents may be composed differently
        if other != path:
            faults.append(f"{other} and {path} are for the same image")
    for name in found.keys() & sizes.keys():
        try:
            mask = read_mask(found[name])
        except UserError as error:
            faults.append(str(error).rstrip("."))
            continue
        width, height = sizes[name]
        if mask.shape != (height, width):
            faults.append(f"{found[name]} is {mask.shape[1]} x {mask.shape[0]}, its image {width} x {height}")
        elif not (mask >= 0.5).any():
            faults.append(f"{found[name]} has no object (no pixel of 128 or more)")
    if faults:
        raise UserError(
            "Masks of the override folder cannot be used, mend or remove them: " + "; ".join(sorted(faults))
        )
    return {name: found[name] for name in found if name in sizes}, sorted(found.keys() - sizes.keys())


def read_excluded(files: Iterable[Path], names: Iterable[str]) -> set[str]:
    """The names in files of one name a line. Raises UserError for one that is no image's."""
    known, excluded = set(names), set[str]()
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The list {file} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
        for line in filter(str.strip, lines):
            line = line if line in known else line.strip()
            if line not in known:
                raise UserError(
                    f"{file} excludes {line!r}, which is no image here: write names as in the first column of {TABLE}."
                )
            excluded.add(line)
    return excluded


def check_untouched(out: Path, names: Iterable[str]) -> None:
    """Raise UserError if a mask of one of these images is in the folder but was not put there by a run, as it is."""
    ours = _published(out)
    changed = []
    for name in map(mask_name, names):
        if (out / name).exists() and _hash((out / name).read_bytes()) not in ours.get(name, ()):
            changed.append(str(out / name))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{changed[0]}{more} was changed by hand and is not overwritten: move it into a folder of the same layout and "
            "give that as --override, or remove it."
        )


def publish(
    out: Path,
    names: Sequence[str],
    *,
    overrides: Mapping[str, Path],
    excluded: set[str],
    min_confidence: float,
    min_pixels: int,
    title: str,
) -> list[MaskRow]:
    """Write masks, masks.csv and the contact sheet for the images of this call (`names`) and of earlier ones.

    An image of an earlier call that could not be read is left out.
    """
    now, rows = set(names), list[MaskRow]()
    masks: dict[str, Callable[[], bytes]] = {}
    entries, unreadable = [], {}
    for name in known_names(out):
        record = read_record(out, name)
        if record is None or (record.outcome == UNREADABLE and name not in now):
            continue
        own = overrides.get(mask_name(name)) if record.outcome != UNREADABLE else None
        outcome = _outcome(record, own is not None, name in excluded, min_confidence, min_pixels)
        override = None if own is None else read_mask(own)
        rows.append(_row(record, outcome, override))
        if outcome == UNREADABLE:
            unreadable[name] = record.fault
            continue
        entries.append(_entry(out, record, rows[-1], override))
        if override is not None:
            masks[mask_name(name)] = partial(_encoded, overrides[mask_name(name)])
        elif outcome == OBJECT:
            masks[mask_name(name)] = partial(_part, out, name, "mask.png")
    check_untouched(out, [row.file for row in rows])
    _write_masks(out, masks)
    _write_table(out / TABLE, rows)
    write_sheets(out, entries, unreadable, title=title)
    return rows


def count_outcomes(rows: Iterable[MaskRow]) -> dict[str, int]:
    """How many images have each outcome, in the order of OUTCOMES; without those that none has."""
    counts = Counter(row.outcome for row in rows)
    return {outcome: counts[outcome] for outcome in OUTCOMES if counts[outcome]}


def _outcome(record: Record, override: bool, excluded: bool, min_confidence: float, min_pixels: int) -> str:
    if record.outcome == UNREADABLE:
        return UNREADABLE
    if override:
        return OVERRIDE
    if excluded:
        return EXCLUDED
    if record.outcome != OBJECT:
        return record.outcome
    if record.pixels < min_pixels:
        return TOO_SMALL
    return LOW if record.confidence < min_confidence else OBJECT


def _row(record: Record, outcome: str, override: np.ndarray | None) -> MaskRow:
    if outcome == UNREADABLE:
        return MaskRow(record.name, outcome, note=record.fault)
    if override is not None:
        inside = override >= 0.5
        return MaskRow(record.name, outcome, share=float(f"{inside.mean():.4g}"), pixels=int(inside.sum()))
    return MaskRow(record.name, outcome, *record.quality, record.pixels)


def _entry(out: Path, record: Record, row: MaskRow, override: np.ndarray | None) -> Entry:
    quality, pixels = record.quality, row.pixels or 0
    if override is not None:
        quality = quality._replace(share=row.share or 0.0)

    def tiles() -> Mapping[str, bytes]:
        parts = {name: _part(out, record.name, name) for name in ("picture.jpg", "coarse.png", "refined.png")}
        return parts if override is None else {**parts, "refined.png": mask_tile(override >= 0.5)}

    excludable = row.outcome in (OBJECT, EXCLUDED)
    return Entry(record.name, row.outcome, quality, pixels, record.width, record.height, excludable, tiles)


def _write_masks(out: Path, masks: Mapping[str, Callable[[], bytes]]) -> None:
    old = _published(out)
    new = {name: [_hash(content())] for name, content in masks.items()}
    record = out / HIDDEN / "published.json"
    if new != old:  # while masks are being exchanged, both the old and the new ones are ours
        both = {name: [*old.get(name, []), *new.get(name, [])] for name in {**old, **new}}
        atomic_write(record, json.dumps(both, indent=0) + "\n")
    for name, content in masks.items():
        path = out / name
        if not path.exists() or _hash(path.read_bytes()) != new[name][0]:
            atomic_write(path, content())
    for name in old.keys() - new.keys():
        (out / name).unlink(missing_ok=True)
        with suppress(OSError):  # folders that are empty now
            for parent in [*(out / name).parents][: len(PurePosixPath(name).parts) - 1]:
                parent.rmdir()
    atomic_write(record, json.dumps(new, indent=0) + "\n")


def _published(out: Path) -> dict[str, list[str]]:
    """The hashes of the masks that a run has put into the folder, by name."""
    try:
        return json.loads((out / HIDDEN / "published.json").read_text())
    except FileNotFoundError:
        return {}


def _write_table(path: Path, rows: Sequence[MaskRow]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(MaskRow._fields)
    for row in rows:
        writer.writerow(["" if v is None else f"{v:.4g}" if isinstance(v, float) else v for v in row])
    atomic_write(path, text.getvalue())


def _part(out: Path, name: str, part: str) -> bytes:
    content = read_part(out, name, part)
    if content is None:
        raise UserError(f"The state of {name} in {out / HIDDEN} has no {part}: remove it, and the image is done again.")
    return content


def _encoded(path: Path) -> bytes:
    return mask_png(np.round(read_mask(path) * 255).astype(np.uint8))


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
