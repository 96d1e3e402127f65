"""The published TokenCut masks: MASKS/WNID/NAME_tokencut_bfs.pt, each a NumPy array saved by torch.

0 is background, 1 object. Where the refined mask agreed too little with the coarse one, the setup multiplied it by -1;
its sum is then negative, by which it was dropped. The masks are those of pictures that were first resized to a short
side of 224 pixels (protocol, "Automatic masks").
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from relevit.data.annotations.listing import Foreground, Listing, in_class_folders
from relevit.errors import FileError, UserError
from relevit.images import read_image

SHORT_SIDE = 224
_SUFFIX = "_tokencut_bfs"
_NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
_one_at_a_time = threading.Lock()  # torch keeps the list of what is allowed in one place for all threads


def read_published(path: Path) -> Foreground:
    """The mask in a file that torch saved.

    The file is read with torch's safe reader, which runs nothing; beside numbers and text it may hold NumPy arrays of
    numbers and no other object. Raises UserError for anything else, and for other values than 0, 1 and -1.
    """
    import pickle

    import torch

    try:
        with _one_at_a_time, torch.serialization.safe_globals(_allowed()):
            array: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.") from error
    except pickle.UnpicklingError as error:
        raise FileError(
            path, f"is refused: it holds more than a NumPy array, which is not read ({_first(error)})"
        ) from error
    except Exception as error:  # whatever a broken file makes of the reader
        raise FileError(path, f"cannot be read ({_first(error)}): replace or remove it") from error
    if not isinstance(array, np.ndarray):
        raise FileError(path, f"is refused: it holds {type(array).__name__}, not a NumPy array")
    values = array.squeeze() if array.ndim == 3 else array
    if values.ndim != 2 or not np.isin(values, (-1, 0, 1)).all() or (values.min(initial=0) < 0 < values.max(initial=0)):
        raise FileError(path, "is no published mask: expected (height, width) of 0 and 1, or of 0 and -1")
    if values.min(initial=0) < 0:
        return Foreground(values < 0, left_out="marked by -1 as unlike its coarse mask")
    return Foreground(values > 0)


def list_published(source: Path, images: Path | None, class_list: Sequence[str] | None) -> Listing:
    """SOURCE/WNID/NAME_tokencut_bfs.pt, and pictures flat in one folder, IMAGES/NAME.JPEG, or in IMAGES/WNID.

    The pictures may be the resized ones or the original ones, to which the masks are resized then.
    """
    if images is None:
        raise UserError(
            "The published masks do not lie beside their pictures: give the folder by --images (images=...)."
        )
    found = in_class_folders(source, images, {".pt"}, read_published, class_list, suffix=_SUFFIX, flat=True)
    entries = [entry._replace(read=partial(_read_for, entry.source, entry.image)) for entry in found.entries]
    return found._replace(entries=entries)


def _read_for(path: Path, image: Path) -> Foreground:
    """The mask at the size of its picture, resized (nearest) where it is that of the picture at the short side 224;
    a mask of any other size is left as it is, for the caller to refuse."""
    found = read_published(path)
    picture = read_image(image)
    sizes = zip(found.mask.shape, (picture.height, picture.width), strict=True)
    scale = SHORT_SIDE / min(picture.size)
    # the long side is rounded up or down
    if min(found.mask.shape) == SHORT_SIDE and all(abs(before - scale * after) < 1 for before, after in sizes):
        resized = Image.fromarray(found.mask.astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
        return found._replace(mask=np.asarray(resized) > 0)
    return found


def _allowed() -> list[Any]:
    """What builds an array of numbers: by both names of NumPy's module, that of version 1 and that of version 2."""
    from numpy._core.multiarray import _reconstruct

    build = [(_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    return [*build, np.ndarray, np.dtype, *{type(np.dtype(number)) for number in _NUMBERS}]


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
