"""What is kept of every image whose mask was made, and the work on one image; a worker process needs no torch for it.

    OUT/.relevit/images/NAME.zip   record.json, and of a readable image: mask.png (as made, at the image's own size),
                                   picture.jpg, coarse.png and refined.png (small, for the contact sheet)

One file for each image, written atomically: an image is done or it is not, whenever the run is killed. The masks that the
user sees are made from these files (`publish.py`), so that another threshold needs no new masks.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from relevit.errors import UserError, reason_of
from relevit.files import atomic_write
from relevit.folders import HIDDEN, join
from relevit.images import read_image
from relevit.masking.contact_sheet import mask_tile, picture_tile
from relevit.masking.record import UNREADABLE, MaskRecord
from relevit.masking.refinement import Seen, backbone_view, finished_mask

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of everything in a state's file: it depends on the image alone


class ImageFile(NamedTuple):
    """An image to do: its file, and its name as in MaskRecord."""

    source: Path
    name: str


def state_file(out: Path, name: str) -> Path:
    return out / HIDDEN / "images" / f"{name}.zip"


def read_record(out: Path, name: str) -> MaskRecord | None:
    """What is known of an image; None if it was not done yet."""
    content = read_part(out, name, "record.json")
    return None if content is None else MaskRecord(**json.loads(content))


def read_part(out: Path, name: str, part: str) -> bytes | None:
    """A file of an image's state; None where there is none. Raises UserError for a state that cannot be read."""
    path = state_file(out, name)
    try:
        with zipfile.ZipFile(path) as state:
            return state.read(part)
    except (FileNotFoundError, KeyError):
        return None
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it, and the image is done again.") from error


def known_names(out: Path) -> list[str]:
    """The names of all images that have a state, sorted."""
    root = out / HIDDEN / "images"
    return sorted(path.relative_to(root).as_posix()[: -len(".zip")] for path in root.rglob("*.zip"))


def is_done(out: Path, image: ImageFile) -> bool:
    """Whether the image has a state, and its file is as it was then (by size and time, else by content)."""
    record = read_record(out, image.name)
    if record is None:
        return False
    try:
        status = os.stat(image.source)
        if status.st_size != record.bytes:
            return False
        return status.st_mtime_ns == record.modified or _digest(image.source) == record.digest
    except OSError:
        return record.outcome == UNREADABLE


def view_of(image: ImageFile, *, patch: tuple[int, int], size: int | None, max_side: int) -> np.ndarray | str:
    """The image as the backbone sees it, uint8 (height, width, 3), or why it cannot be read."""
    try:
        return backbone_view(read_image(image.source), patch, size=size, max_side=max_side)
    except UserError as error:
        return reason_of(error)


def finish(out: Path, image: ImageFile, seen: Seen | str, *, refine: bool, size: int | None) -> None:
    """Refine an image's mask, measure it, and write the image's state. seen: by the backbone, or why there is nothing."""
    identity, picture = (-1, -1, ""), None
    try:
        status = os.stat(image.source)  # before it is read: what changes later is done again
        identity = status.st_size, status.st_mtime_ns, _digest(image.source)
        picture = None if isinstance(seen, str) else read_image(image.source)
    except (UserError, OSError) as error:  # gone since the backbone saw it
        seen = seen if isinstance(seen, str) else reason_of(error)
    if picture is None or isinstance(seen, str):
        _write(out, MaskRecord(image.name, *identity, UNREADABLE, str(seen)), {})
        return
    made = finished_mask(picture, *seen, refine=refine, size=size)
    figures = [float(f"{value:.4g}") for value in made.quality]
    size_and_area = picture.width, picture.height, int(made.mask.sum())
    record = MaskRecord(image.name, *identity, made.outcome, "", *size_and_area, *figures)
    parts = {
        "mask.png": mask_png(made.mask.astype(np.uint8) * 255),
        "picture.jpg": picture_tile(picture),
        "coarse.png": mask_tile(made.coarse),
        "refined.png": mask_tile(made.mask),
    }
    _write(out, record, parts)


def mask_png(values: np.ndarray) -> bytes:
    """A mask, uint8 (height, width), 255 on the object, as a grey PNG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def start_worker(out: Path) -> None:
    """What a worker process does first: one thread, and it may write to the folder that the main process holds."""
    cv2.setNumThreads(1)
    threadpool_limits(1)
    join(out)


def _write(out: Path, record: MaskRecord, parts: dict[str, bytes]) -> None:
    described = json.dumps(record._asdict(), ensure_ascii=False, indent=1).encode()

    def content(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as state:  # stored as they are: pictures are compressed already
            for name, part in {"record.json": described, **parts}.items():
                state.writestr(zipfile.ZipInfo(name, _EPOCH), part)

    atomic_write(state_file(out, record.name), content)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
