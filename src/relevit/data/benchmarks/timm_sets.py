"""Data sets that timm opens by a string: hfds/..., hfids/..., tfds/..., wds/..., torch/...

A string is `PREFIX/NAME`, with options as in a web address: `hfds/imagenet-1k?split=test&root=/data`, `wds/mine?root=/data/shards`,
`torch/cifar10?root=/data`. The split is validation where none is given; everything else goes to `timm.data.create_dataset`. Nothing is downloaded by
timm unless the string says `download=true`; what the library behind a prefix fetches by itself follows its own rules.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image

from relevit.data.benchmarks.indexed_set import indexed_set
from relevit.data.sets import ImageSet, StreamSet, whole
from relevit.errors import UserError
from relevit.images import decode, to_rgb

PACKAGES = {
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow-datasets",
    "wds": "webdataset",
    "torch": "torchvision",
}
_STREAMS = ("hfids", "tfds", "wds")
_FOLDER_NEEDED = ("wds", "torch")


def is_timm_string(text: str) -> bool:
    """Whether this names a data set by one of timm's prefixes, such as hfds/..."""
    prefix, _, rest = text.partition("/")
    return bool(rest) and prefix.lower() in PACKAGES


def open_timm(text: str) -> ImageSet | StreamSet:
    """The data set of a string. Raises UserError for one that cannot be opened, and names the package where one is missing."""
    address, _, query = text.partition("?")
    prefix, _, name = address.partition("/")
    prefix = prefix.lower()
    options = _options(text, query)
    root = options.get("root")
    if prefix in _FOLDER_NEEDED and (root is None or not Path(root).is_dir()):
        raise UserError(
            f"{text} needs the folder of its files, {address}?root=FOLDER"
            + ("" if root is None else f", and there is no folder {root}")
        )
    make = partial(_create, text, f"{prefix}/{name}", options)
    if prefix in _STREAMS:
        length = int(getattr(make().reader, "num_samples", None) or 0)
        return StreamSet(text, partial(_pairs, text, make), length or None)
    return _from_torchvision(text, make()) if prefix == "torch" else _from_hub(text, make())


def _options(text: str, query: str) -> dict[str, Any]:
    found: dict[str, Any] = {"split": "validation"}
    for part in query.split("&") if query else []:
        pairs = parse_qsl(part, keep_blank_values=True)
        if "=" not in part or not pairs:
            raise UserError(f"{text}: options after the question mark are written key=value&key=value, not {part!r}")
        key, value = pairs[0]
        found[key] = value.lower() == "true" if value.lower() in ("true", "false") else value
    return found


def _create(text: str, name: str, options: dict[str, Any]) -> Any:
    from timm.data import create_dataset

    package = PACKAGES[name.partition("/")[0]]
    try:
        with redirect_stdout(io.StringIO()):  # timm prints how to install a library where results belong
            return create_dataset(name, **{"root": None, **options})
    except ImportError as error:
        raise UserError(f"{text} needs a package that is not installed: pip install {package}") from error
    except Exception as error:  # whatever the library raises
        if isinstance(error, RuntimeError) and f"install {package}" in str(error):
            raise UserError(f"{text} needs a package that is not installed: pip install {package}") from error
        raise UserError(f"{text} cannot be opened ({error or type(error).__name__})") from error


def _pairs(text: str, make: Callable[[], Any]) -> Iterator[tuple[Image.Image, Any]]:
    dataset, number = make(), 0
    if hasattr(dataset.reader, "dist_num_replicas"):  # the whole stream, in each of several processes
        dataset.reader.dist_rank, dataset.reader.dist_num_replicas = 0, 1
    stream = iter(dataset)
    while True:
        try:
            pair = next(stream)
        except StopIteration:
            return
        except Exception as error:  # whatever the library raises
            raise UserError(
                f"{text} cannot be read beyond {number} images ({error or type(error).__name__})"
            ) from error
        number += 1
        yield pair


def _from_hub(text: str, dataset: Any) -> ImageSet:
    """timm's own indexing puts the next image in the place of one that cannot be read: here it is an error of that image."""
    reader = dataset.reader
    labels = array("i", (whole(label, f"image {n} of {text}") for n, label in enumerate(reader.iter_targets())))
    names = {number: name for name, number in (reader.class_to_idx or {}).items()}

    def read(index: int) -> Image.Image:
        try:
            with reader[index][0] as opened:
                content = opened.read()
        except (OSError, AssertionError) as error:
            raise UserError(f"image {index} of {text} cannot be read ({error or 'it has no content'})") from error
        return decode(content, f"image {index} of {text}")

    return _indexed(text, labels, names, read)


def _from_torchvision(text: str, dataset: Any) -> ImageSet:
    given = next((getattr(dataset, each) for each in ("targets", "_labels", "labels") if hasattr(dataset, each)), None)
    if given is None:
        raise UserError(f"{text}: torchvision tells its labels image by image only; give its images as class folders")
    labels = array("i", (whole(label, f"image {n} of {text}") for n, label in enumerate(np.asarray(given).tolist())))
    names = getattr(dataset, "wnids", None) or getattr(dataset, "classes", None) or []

    def read(index: int) -> Image.Image:
        try:
            return to_rgb(dataset[index][0])
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"image {index} of {text} cannot be read ({error})") from error

    return _indexed(text, labels, dict(enumerate(map(str, names))), read)


def _indexed(text: str, labels: array, names: dict[int, str], read: Callable[[int], Image.Image]) -> ImageSet:
    if not labels:
        raise UserError(f"{text} holds no images")
    folders = [names.get(number, str(number)) for number in range(max([*labels, *names]) + 1)]
    keys = [f"{number:09d}" for number in range(len(labels))]
    return indexed_set(text, labels, folders, keys, read, bool(names))
