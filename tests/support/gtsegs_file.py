"""A small file in the exact layout of gtsegs_ijcv.mat."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

SIZES = ((7, 11), (13, 5))  # height, width


def pictures() -> list[tuple[np.ndarray, np.ndarray]]:
    """Asymmetric content: each pixel tells its channel, row and column; the object is one corner."""
    made = []
    for number, (height, width) in enumerate(SIZES):
        channel, row, column = np.ogrid[:3, :height, :width]
        image = (
            (100 * number + 31 * channel + 2 * row + column).astype(np.uint8).transpose(1, 2, 0)
        )  # (height, width, 3)
        mask = np.zeros((height, width), np.uint8)
        mask[:2, : width // 2] = 1
        made.append((image, mask))
    return made


def write(path: Path, change: Callable[[h5py.File], object] = lambda file: None) -> Path:
    """As MATLAB 7.3 does: 512 bytes before the HDF5, arrays in #refs#, lists of references (n, 1) in /value."""
    with h5py.File(path, "w", userblock_size=512) as file:
        references = {"img": [], "gt": []}
        for number, (image, mask) in enumerate(pictures()):
            stored = file.create_dataset(f"#refs#/image{number}", data=image.transpose(2, 1, 0))  # (3, width, height)
            labels = file.create_dataset(f"#refs#/labels{number}", data=mask.T)  # (width, height)
            cell = file.create_dataset(f"#refs#/cell{number}", (1, 1), dtype=h5py.ref_dtype)
            cell[0, 0] = labels.ref
            references["img"].append(stored.ref)
            references["gt"].append(cell.ref)
        for name, found in references.items():
            listed = file.create_dataset(f"value/{name}", (len(found), 1), dtype=h5py.ref_dtype)
            for number, reference in enumerate(found):
                listed[number, 0] = reference
        change(file)
    return path
