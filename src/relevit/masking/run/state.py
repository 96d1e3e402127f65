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
from PIL import ExifTags, Image
from threadpoolctl import threadpool_limits

from relevit.errors import UserError, reason_of
from relevit.files import atomic_write
from relevit.folders import HIDDEN, join
from relevit.images import read_image
from relevit.masking.contact_sheet import mask_tile, picture_tile
from relevit.masking.quality import Quality
from relevit.masking.refinement import backbone_view, finished_mask

UNREADABLE = "unreadable"
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap the sides
Seen = tuple[np.ndarray, tuple[float, float]]  # the object's patches, and eigenvalues: the backbone's share of a mask
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of everything in a state's file: it depends on the image alone


class Job(NamedTuple):
    """An image: its file, and its name below the folder of masks, with `/` between folders and the image's ending."""

    source: Path
    name: str


class Record(NamedTuple):
    """What is known of one image. bytes, modified (nanoseconds), digest: what tells whether its file was changed.

    outcome: "object", "no object found" or "unreadable", then with `fault` as the reason. width, height: of the upright
    picture. pixels: of the mask. The rest as in `masks.quality`.
    """

    name: str
    bytes: int
    modified: int
    digest: str
    outcome: str
    fault: str = ""
    width: int = 0
    height: int = 0
    pixels: int = 0
    confidence: float = 0.0
    eigengap: float = 0.0
    agreement: float = 0.0
    share: float = 0.0
    border: float = 0.0

    @property
    def quality(self) -> Quality:
        return Quality(self.confidence, self.eigengap, self.agreement, self.share, self.border)


def state_file(out: Path, name: str) -> Path:
    return out / HIDDEN / "images" / f"{name}.zip"


def read_record(out: Path, name: str) -> Record | None:
    """What is known of an image; None if it was not done yet."""
    content = read_part(out, name, "record.json")
    return None if content is None else Record(**json.loads(content))


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


def is_done(out: Path, job: Job) -> bool:
    """Whether the image has a state, and its file is as it was then (by size and time, else by content)."""
    record = read_record(out, job.name)
    if record is None:
        return False
    try:
        status = os.stat(job.source)
        if status.st_size != record.bytes:
            return False
        return status.st_mtime_ns == record.modified or _digest(job.source) == record.digest
    except OSError:
        return record.outcome == UNREADABLE


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, upright, from its header. Raises UserError if it has none."""
    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
            return (picture.height, picture.width) if turned else picture.size
    except Exception:  # whatever the decoder stumbles over: the error for the user is made by reading the picture
        return read_image(path).size


def view_of(job: Job, *, patch: tuple[int, int], size: int | None, max_side: int) -> np.ndarray | str:
    """The image as the backbone sees it, uint8 (height, width, 3), or why it cannot be read."""
    try:
        return backbone_view(read_image(job.source), patch, size=size, max_side=max_side)
    except UserError as error:
        return reason_of(error)


def finish(out: Path, job: Job, seen: Seen | str, *, refine: bool, size: int | None) -> None:
    """Refine an image's mask, measure it, and write the image's state. seen: by the backbone, or why there is nothing."""
    try:
        identity = _identity(job.source)  # before it is read: what changes later is done again
        picture = None if isinstance(seen, str) else read_image(job.source)
    except UserError as error:  # gone since the backbone saw it
        picture, seen = None, reason_of(error)
    except OSError as error:
        identity, picture = (-1, -1, ""), None
        seen = seen if isinstance(seen, str) else reason_of(error)
    if picture is None or isinstance(seen, str):
        _write(out, Record(job.name, *identity, UNREADABLE, str(seen)), {})
        return
    patches, eigenvalues = seen
    made = finished_mask(picture, patches, eigenvalues, refine=refine, size=size)
    figures = [float(f"{value:.4g}") for value in made.quality]
    size_and_area = picture.width, picture.height, int(made.mask.sum())
    record = Record(job.name, *identity, made.outcome, "", *size_and_area, *figures)
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


def _write(out: Path, record: Record, parts: dict[str, bytes]) -> None:
    described = json.dumps(record._asdict(), ensure_ascii=False, indent=1).encode()

    def content(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as state:  # stored as they are: pictures are compressed already
            for name, part in {"record.json": described, **parts}.items():
                state.writestr(zipfile.ZipInfo(name, _EPOCH), part)

    atomic_write(state_file(out, record.name), content)


def _identity(path: Path) -> tuple[int, int, str]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, _digest(path)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
