"""From what is known of every image to what the user gets: the folder of masks, masks.csv and the contact sheet.

All of it follows from the images' states, the override folder and the thresholds; it is the same whatever was there before.
A mask in the folder that differs from what was put there is never touched: it was changed by hand.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from relevit.data.reading import write_rows
from relevit.errors import UserError
from relevit.files import atomic_write
from relevit.folders import HIDDEN
from relevit.images import read_mask
from relevit.masking.contact_sheet import mask_tile, write_sheets
from relevit.masking.record import EXCLUDED, LOW, OUTCOMES, OVERRIDE, TOO_SMALL, UNREADABLE, MaskRecord
from relevit.masking.refinement import OBJECT
from relevit.masking.run.plan import mask_name
from relevit.masking.run.state import known_names, mask_png, read_part, read_record

SHEET, TABLE = "contact_sheet.html", "masks.csv"
_FIGURES = ("confidence", "eigengap", "agreement", "share", "border", "pixels")


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
    names: Iterable[str],
    *,
    overrides: Mapping[str, Path],
    excluded: set[str],
    min_confidence: float,
    min_pixels: int,
    title: str,
) -> list[MaskRecord]:
    """Write masks, masks.csv and the contact sheet for the images of this call (`names`) and of earlier ones.

    An image of an earlier call that could not be read is left out.
    """
    now, records = set(names), list[MaskRecord]()
    masks: dict[str, Callable[[], bytes]] = {}
    for name in known_names(out):
        record = read_record(out, name)
        if record is None or (record.outcome == UNREADABLE and name not in now):
            continue
        if name in overrides and record.outcome != UNREADABLE:
            inside = read_mask(overrides[name]) >= 0.5
            share = float(f"{inside.mean():.4g}")
            record = record._replace(outcome=OVERRIDE, share=share, pixels=int(inside.sum()))
            masks[mask_name(name)] = partial(_encoded, overrides[name])
        elif name in excluded and record.outcome != UNREADABLE:
            record = record._replace(outcome=EXCLUDED)
        elif record.outcome == OBJECT and record.pixels < min_pixels:
            record = record._replace(outcome=TOO_SMALL)
        elif record.outcome == OBJECT and record.confidence < min_confidence:
            record = record._replace(outcome=LOW)
        elif record.outcome == OBJECT:
            masks[mask_name(name)] = partial(_part, out, name, "mask.png")
        records.append(record)
    check_untouched(out, [record.name for record in records])
    _write_masks(out, masks)
    write_rows(out / TABLE, ("file", "outcome", *_FIGURES, "note"), map(_row, records))
    write_sheets(out, records, partial(_tiles, out, overrides), title=title)
    return records


def count_outcomes(records: Iterable[MaskRecord]) -> dict[str, int]:
    """How many images have each outcome, in the order of OUTCOMES; without those that none has."""
    counts = Counter(record.outcome for record in records)
    return {outcome: counts[outcome] for outcome in OUTCOMES if counts[outcome]}


def _row(record: MaskRecord) -> list[Any]:
    """A row of masks.csv; figures are blank where the mask is the user's own or the image could not be read."""
    shown = {OVERRIDE: ("share", "pixels"), UNREADABLE: ()}.get(record.outcome, _FIGURES)
    figures = [getattr(record, name) if name in shown else "" for name in _FIGURES]
    return [
        record.name,
        record.outcome,
        *(f"{value:.4g}" if isinstance(value, float) else value for value in figures),
        record.fault,
    ]


def _tiles(out: Path, overrides: Mapping[str, Path], record: MaskRecord) -> dict[str, bytes]:
    parts = {name: _part(out, record.name, name) for name in ("picture.jpg", "coarse.png", "refined.png")}
    if record.outcome == OVERRIDE:
        parts["refined.png"] = mask_tile(read_mask(overrides[record.name]) >= 0.5)
    return parts


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


def _part(out: Path, name: str, part: str) -> bytes:
    content = read_part(out, name, part)
    if content is None:
        raise UserError(f"The state of {name} in {out / HIDDEN} has no {part}: remove it, and the image is done again.")
    return content


def _encoded(path: Path) -> bytes:
    return mask_png(np.round(read_mask(path) * 255).astype(np.uint8))


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
