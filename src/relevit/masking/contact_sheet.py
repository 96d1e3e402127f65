"""The contact sheet of automatic masks: one row an image, the most doubtful first, to look through in a minute.

The pages hold everything that they show. A picture is in its row once; what is drawn over it are small transparent PNG
files, so that a row takes some ten kilobytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool
from markupsafe import Markup, escape
from PIL import Image

from relevit.masking.record import UNREADABLE, MaskRecord
from relevit.report.page import render

TILE = 160  # pixels of a tile's long side
PAGE = 1000  # rows on a page
_CLEAR, _VEIL, _EDGE, _HALO = range(4)
_PALETTE = [0, 0, 0, 128, 128, 128, 255, 255, 255, 0, 0, 0]
_OPACITY = bytes([0, 205, 255, 170])  # of the four colours above


def tile_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the tile of a picture; small pictures are enlarged."""
    factor = TILE / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def picture_tile(picture: Image.Image) -> bytes:
    """A small JPEG of a picture (RGB)."""
    buffer = io.BytesIO()
    small = picture.resize(tile_size(*picture.size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    small.save(buffer, "JPEG", quality=72, optimize=True)
    return buffer.getvalue()


def mask_tile(mask: Bool[np.ndarray, "height width"]) -> bytes:
    """What is laid over a picture's tile: a veil outside of the mask, and its outline, a white line inside a dark one."""
    size = tile_size(mask.shape[1], mask.shape[0])
    inside = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) >= 128
    wide = inside.astype(np.uint8)
    thinner, thicker = (change(wide, np.ones((3, 3), np.uint8)) > 0 for change in (cv2.erode, cv2.dilate))
    drawing = np.where(inside, _CLEAR, _VEIL).astype(np.uint8)
    drawing[inside & ~thinner] = _EDGE
    drawing[thicker & ~inside] = _HALO
    image = Image.frombytes("P", size, drawing.tobytes())
    image.putpalette(_PALETTE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=_OPACITY, bits=2, optimize=True)
    return buffer.getvalue()


def write_sheets(
    folder: Path,
    records: Sequence[MaskRecord],
    tiles: Callable[[MaskRecord], Mapping[str, bytes]],
    *,
    title: str,
    page: int = PAGE,
) -> list[Path]:
    """Write contact_sheet.html, and contact_sheet_2.html, ... where there are more than `page` rows; returns their paths.

    Rows with a mask come first, those of low confidence before the others; then those without an object; then a list of
    the images that could not be read, with the reason. Sheets that are there already are replaced, those that are too
    many removed. tiles: gives the bytes of an image's picture (JPEG) and of the two drawings (PNG), by their names
    picture.jpg, coarse.png, refined.png.
    """
    shown = [record for record in records if record.outcome != UNREADABLE]
    unreadable = {record.name: record.fault for record in records if record.outcome == UNREADABLE}
    masked = sorted((e for e in shown if e.pixels), key=lambda e: (e.confidence, e.name))
    empty = sorted((e for e in shown if not e.pixels), key=lambda e: e.name)
    rows = [*masked, *empty]
    pages = [rows[start : start + page] for start in range(0, len(rows), page)] or [[]]
    paths = [folder / _page_name(number) for number in range(1, len(pages) + 1)]
    for number, (path, part) in enumerate(zip(paths, pages, strict=True), start=1):
        render(
            "contact_sheet.html",
            path,
            overwrite=True,
            title=title,
            rows=part,
            tiles_of=tiles,
            first=(number - 1) * page + 1,
            total=len(rows),
            number=number,
            names=[path.name for path in paths],
            unreadable=unreadable if number == len(paths) else {},
            tile_size=tile_size,
            breakable=_breakable,
            share=_percent,
        )
    for left in folder.glob("contact_sheet_*.html"):
        if re.fullmatch(r"contact_sheet_\d+\.html", left.name) and left not in paths:
            left.unlink()
    return paths


def _page_name(number: int) -> str:
    return "contact_sheet.html" if number == 1 else f"contact_sheet_{number}.html"


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after a `/` or a `_`."""
    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(escape(name))))


def _percent(value: float) -> str:
    return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"
