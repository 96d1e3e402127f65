"""Pictures with one object each, of which `relevit doctor` has nothing to tell."""

from __future__ import annotations

import numpy as np

HEIGHT, WIDTH = 37, 43  # 1591 pixels
TOP, LEFT, BOTTOM, RIGHT = 5, 7, 33, 36  # 28 x 29 = 812 pixels of object


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def mask(seed: int = 0) -> np.ndarray:
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[TOP + seed % 3 : BOTTOM + seed % 3, LEFT:RIGHT] = 255
    return values
