"""ImageNet-segmentation: the file gtsegs_ijcv.mat of Guillaumin, Küttel and Ferrari (IJCV 2014), 4,276 images with figure masks.

A MATLAB 7.3 file, which is HDF5: /value/img[i, 0] refers to a uint8 array (3, width, height), /value/gt[i, 0] to an array whose
[0, 0] refers to the labels (width, height), 1 on the object and 0 elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from relevit.data.sample import Sample
from relevit.data.sets import ImageSet
from relevit.errors import UserError

IMAGES, LABELS = "value/img", "value/gt"


def gtsegs(path: str | os.PathLike[str]) -> ImageSet:
    """The images of gtsegs_ijcv.mat with their masks, in the file's order; labels are unknown (-1), names are their numbers.

    The file stays open; indexing reads one image, and raises UserError where that is not as described above.

    Raises:
        UserError: there is no such file, it is not HDF5 or cut short, or it holds no such lists.
    """
    file = _File(path)
    return ImageSet(str(path), file.read, file.names, [""] * len(file.names), [-1] * len(file.names), masked=True)


class _File:
    """The open file, from which images are read by number."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"There is no file {self.path}: give gtsegs_ijcv.mat.")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise UserError(
                f"{self.path} is no HDF5 file (MATLAB 7.3), or it is cut short: download gtsegs_ijcv.mat again."
            ) from error
        self._images, self._labels = self._list(IMAGES), self._list(LABELS)
        if self._images.shape != self._labels.shape:
            raise UserError(
                f"{self.path} lists {self._images.shape[0]} images and {self._labels.shape[0]} masks: it must have as many "
                "of both; download gtsegs_ijcv.mat again."
            )
        self.names = [f"{index:05d}" for index in range(self._images.shape[0])]

    def read(self, index: int) -> Sample:
        try:
            image = self._array(self._images[index, 0])
            labels = self._array(self._array(self._labels[index, 0])[0, 0])
        except UserError as error:
            raise UserError(f"image {index} of {self.path}: {error}") from error
        except (OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:  # what h5py raises
            raise UserError(f"image {index} of {self.path} cannot be read ({error})") from error
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise UserError(
                f"image {index} of {self.path} is {image.dtype} {image.shape}, expected uint8 (3, width, height)"
            )
        if labels.shape != image.shape[1:] or not np.isin(labels, (0, 1)).all():
            raise UserError(
                f"the mask of image {index} of {self.path} must be 0 and 1, {image.shape[1:]} (width, height) as its image"
            )
        picture = np.ascontiguousarray(image.transpose(2, 1, 0))  # (3, width, height) -> (height, width, 3)
        mask = np.ascontiguousarray(labels.T).astype(np.float32)  # (width, height) -> (height, width)
        return Sample(picture, mask, -1, None, self.names[index])

    def _list(self, key: str) -> Any:
        found = self._file.get(key)
        if not isinstance(found, h5py.Dataset) or found.ndim != 2 or h5py.check_ref_dtype(found.dtype) is None:
            raise UserError(f"{self.path} has no list of references /{key}: it is not gtsegs_ijcv.mat.")
        if not found.shape[0] or not found.shape[1]:
            raise UserError(f"{self.path}: the list /{key} is empty.")
        return found

    def _array(self, reference: Any) -> np.ndarray:
        """What a reference leads to."""
        if not isinstance(reference, h5py.Reference) or not reference:
            raise UserError("a reference is missing")
        found = self._file[reference]
        if not isinstance(found, h5py.Dataset):
            raise UserError("a reference leads to no array")
        return found[()]
