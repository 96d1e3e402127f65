"""Images in tar files: one archive with class folders, or a folder of archives, one a class.

timm lists them; each image is then read in place, by its offset, so that any number of processes may read at once.
"""

from __future__ import annotations

import os
import tarfile
from array import array
from pathlib import Path

from PIL import Image

from relevit.data.benchmarks.indexed_set import indexed_set
from relevit.data.listing import Paths, is_visible
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.images import decode


def has_tars(path: Path) -> bool:
    """Whether this is a tar file, or a folder with tar files directly in it and no folders."""
    if path.is_file():
        return path.suffix.lower() == ".tar"
    if not path.is_dir():
        return False
    with os.scandir(path) as entries:
        seen = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    return any(name.endswith(".tar") for name, _ in seen) and not any(folder for _, folder in seen)


def open_tars(path: Path) -> ImageSet:
    """The images of a tar file, or of a folder of tars; the class is the innermost folder, or else the archive's name.

    Raises UserError for a broken or compressed archive, one without images, or images outside of class folders.
    """
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar  # timm's factory knows single tar files only

    try:
        reader = ReaderImageInTar(os.fspath(path), cache_tarinfo=False)  # whose cache would be a pickle beside the data
    except (tarfile.TarError, AssertionError, ValueError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as tar files of images ({error or type(error).__name__}): give uncompressed archives"
        ) from error
    entries = []
    for (entry, file, outer), label in zip(reader.samples, reader.targets, strict=True):
        parts = [*([file] if file else []), *([outer.name] if outer is not None else []), entry.name.removeprefix("./")]
        name = "/".join(parts)
        if all(is_visible(part) for part in name.split("/")):
            offset = entry.offset_data + (0 if outer is None else outer.offset_data)
            entries.append((name, file or "", offset, entry.size, int(label)))
    entries.sort()
    used = sorted({entry[-1] for entry in entries})
    folders = [reader.class_idx_to_name[label] for label in used]
    if not entries or "" in folders:
        raise UserError(f"{path} holds no images in class folders: expected <class>/<image> inside, or <class>.tar")
    group = {label: number for number, label in enumerate(used)}
    index = _Index(path, entries)
    return indexed_set(
        str(path), array("i", (group[entry[-1]] for entry in entries)), folders, index.paths.names, index.read
    )


class _Index:
    """Where each image lies: archive, offset and size; a few bytes each beside its name."""

    def __init__(self, path: Path, entries: list[tuple[str, str, int, int, int]]) -> None:
        self.files = [path / file if file else path for file in sorted({entry[1] for entry in entries})]
        number = {file: n for n, file in enumerate(sorted({entry[1] for entry in entries}))}
        self.paths = Paths(path, (entry[0] for entry in entries))
        self.file = array("i", (number[entry[1]] for entry in entries))
        self.offset = array("q", (entry[2] for entry in entries))
        self.size = array("q", (entry[3] for entry in entries))

    def read(self, index: int) -> Image.Image:
        try:
            with open(self.files[self.file[index]], "rb") as file:
                file.seek(self.offset[index])
                content = file.read(self.size[index])
        except OSError as error:
            raise UserError(f"{self.files[self.file[index]]} cannot be read ({error.strerror})") from error
        return decode(content, os.fspath(self.paths[index]))
