"""COCO annotations: one JSON of polygons and run lengths; for each picture and category, one mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool

from relevit.data.annotations.listing import Entry, FaultyMaskError, Foreground, Listing, class_folder, once
from relevit.data.reading import read_json
from relevit.errors import Fault, UserError


def list_coco(source: Path, images: Path | None, class_list: Sequence[str] | None) -> Listing:
    """An instances JSON and the folder of its pictures (`file_name` is relative to it).

    One entry for each picture and category in it, in a folder of the category's name: the union of the category's
    instances is object, its crowd regions (iscrowd) are ignored, everything else is background. `class_list` keeps the
    categories that it names.
    """
    if images is None:
        raise UserError(
            "COCO annotations do not say where the pictures are: give their folder by --images (images=...)."
        )
    content = read_json(source, "COCO's instances")
    faults: list[Fault] = []
    try:
        pictures = {int(one["id"]): one for one in content["images"]}
        categories = {int(one["id"]): str(one["name"]) for one in content["categories"]}
        groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for one in content["annotations"]:
            groups.setdefault((int(one["image_id"]), int(one["category_id"])), []).append(one)
        sizes = {key: (int(one["height"]), int(one["width"])) for key, one in pictures.items()}
        files = {key: str(one["file_name"]) for key, one in pictures.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{source} holds no COCO annotations ({type(error).__name__}: {error}): expected images with id, file_name, "
            "height and width, categories with id and name, annotations with image_id, category_id and segmentation."
        ) from error
    entries: list[Entry] = []
    crowds = 0
    for (picture, category), group in groups.items():
        told = f"annotation {group[0].get('id', '?')}"
        if picture not in pictures or category not in categories:
            missing = f"image {picture}" if picture not in pictures else f"category {category}"
            faults.append(Fault("bad annotation", str(source), f"{told} is of {missing}, which is not listed"))
            continue
        if class_list is not None and categories[category] not in class_list:
            continue
        if all(one.get("iscrowd") for one in group):
            crowds += 1
            continue
        file = PurePosixPath(files[picture])
        if file.is_absolute() or ".." in file.parts or not file.parts:
            faults.append(Fault("bad annotation", str(source), f"image {picture} has the file_name {str(file)!r}"))
            continue
        if not (images / file).is_file():
            faults.append(Fault("missing image", str(images / file), f"{source} names it"))
            continue
        folder = class_folder(categories[category], category)
        read = _reader(source, group, sizes[picture])
        entries.append(Entry(folder, f"{folder}/{file}", images / file, source, read))
    return once(entries, faults, [f"{crowds} times a picture shows a category as a crowd only"] if crowds else [])


def _reader(source: Path, group: list[dict[str, Any]], size: tuple[int, int]) -> Callable[[], Foreground]:
    def read() -> Foreground:
        mask, crowd = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        for one in group:
            try:
                region = decode(one.get("segmentation"), *size)
            except UserError as error:
                detail = f"annotation {one.get('id', '?')} of image {one.get('image_id')}: {error}"
                raise FaultyMaskError("bad annotation", source, detail.rstrip(".")) from error
            (crowd if one.get("iscrowd") else mask)[region] = True
        ignore = crowd & ~mask
        return Foreground(mask, ignore if ignore.any() else None)

    return read


def decode(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """The pixels of one annotation: polygons [[x, y, x, y, ...], ...], or run lengths {"size", "counts"}.

    Raises UserError for anything else, which pycocotools would read as something or crash on.
    """
    from pycocotools import mask as runs

    if isinstance(segmentation, list) and segmentation:
        for polygon in segmentation:
            if not _is_polygon(polygon, 8 * max(height, width)):
                raise UserError("a polygon must have three or more points x, y near the picture.")
        regions = runs.frPyObjects([[float(value) for value in polygon] for polygon in segmentation], height, width)
        return _fill(_unpack(runs.merge(regions)["counts"]), height, width)
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    if counts is None or segmentation.get("size") != [height, width]:
        raise UserError(f"the segmentation must be polygons, or run lengths of the size [{height}, {width}].")
    return _fill(counts if isinstance(counts, list) else _unpack(str(counts).encode()), height, width)


def _fill(counts: list[int], height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """The pixels of run lengths, column by column, background first."""
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
        raise UserError(f"the run lengths must be whole numbers that add up to {height} x {width} pixels.")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, np.array(counts, dtype=np.int64))
    return values.reshape(width, height).T.copy()


def _unpack(text: bytes) -> list[int]:
    """COCO's compressed run lengths: digits of 5 bits, the lowest first, as differences from the length before the last.

    pycocotools' own decoder is not used: it warns with NumPy 2, and does not check what it is given.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = character - 48
        if not 0 <= digit < 64:
            raise UserError("the compressed run lengths have characters that do not belong there.")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:  # the last digit of a number; its highest bit is the sign
            value -= (1 << shift) if digit & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _is_polygon(points: Any, limit: float) -> bool:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return False
    return all(isinstance(value, int | float) and math.isfinite(value) and -limit <= value <= limit for value in points)
