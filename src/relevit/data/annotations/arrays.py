"""Masks as NumPy files in class folders: .npy, or .npz with one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from relevit.data.annotations.listing import Foreground, Listing, in_class_folders
from relevit.errors import FileError, UserError
from relevit.images import mask_values


def read_array(path: Path) -> Foreground:
    """A mask of booleans, of 0 and 1, of 0 to 255, or of numbers in [0, 1] (at least half is object).

    Nothing is unpickled. Raises UserError for other content, for arrays of objects, and for a .npz with several arrays.
    """
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                with loaded:
                    if len(loaded.files) != 1:
                        raise FileError(path, f"has {len(loaded.files)} arrays: a mask's .npz has one")
                    loaded = loaded[loaded.files[0]]
        return Foreground(mask_values(loaded) >= 0.5)
    except UserError as error:
        raise (
            error if isinstance(error, FileError) else FileError(path, f"is no mask: {str(error).rstrip('.')}")
        ) from error
    except (OSError, ValueError, EOFError, BadZipFile, KeyError, SyntaxError) as error:
        raise FileError(path, f"cannot be read as a NumPy array ({error}): replace or remove it") from error


def list_arrays(source: Path, images: Path | None, class_list: Sequence[str] | None) -> Listing:
    """Masks SOURCE/CLASS/NAME.npy or .npz of the pictures IMAGES/CLASS/NAME.*."""
    return in_class_folders(source, images, {".npy", ".npz"}, read_array, class_list)
