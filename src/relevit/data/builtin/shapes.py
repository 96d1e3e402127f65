"""Drawn objects of endless variety: ten classes of shapes, every one with its own proportions, slant, roundness and
wobble."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

GLYPH = 32  # side of an object's alpha in pixels, before it is placed in a picture
_FINE = 4  # drawn this many times finer, then averaged


def _polar(radii: np.ndarray, start: float = -np.pi / 2) -> np.ndarray:
    angle = start + np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(angle), radii * np.sin(angle)], axis=1)


def _triangle(rng: np.random.Generator) -> np.ndarray:
    return np.array([[rng.uniform(-0.3, 0.3), -1], [1, 0.9], [-1, 0.9]])


def _square(rng: np.random.Generator) -> np.ndarray:
    k = rng.uniform(0.75, 1.0)
    return np.array([[-k, -0.9], [k, -0.9], [k, 0.9], [-k, 0.9]])


def _star(rng: np.random.Generator) -> np.ndarray:
    return _polar(np.tile([1.0, rng.uniform(0.32, 0.5)], int(rng.integers(5, 7))))


def _cross(rng: np.random.Generator) -> np.ndarray:
    a, b = rng.uniform(0.2, 0.38, 2)
    return np.array(
        [[-a, -1], [a, -1], [a, -b], [1, -b], [1, b], [a, b], [a, 1], [-a, 1], [-a, b], [-1, b], [-1, -b], [-a, -b]]
    )


def _heart(rng: np.random.Generator) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - rng.uniform(4, 6) * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17
    return np.stack([x, y], axis=1)


def _crescent(rng: np.random.Generator) -> np.ndarray:
    t = np.linspace(0.7, 2 * np.pi - 0.7, 40)
    outer = np.stack([np.cos(t), np.sin(t)], axis=1)
    depth = rng.uniform(0.25, 0.6)
    x0, y0 = outer[0]
    s = np.linspace(1, -1, 30)[:, None] * -1
    inner = np.concatenate([x0 - (1 - s**2) * (x0 + depth + 0.1), s * y0 * 1.0], axis=1)
    return np.concatenate([outer, inner])


def _arrow(rng: np.random.Generator) -> np.ndarray:
    w, neck, head = rng.uniform(0.15, 0.3), rng.uniform(-0.15, 0.2), rng.uniform(0.65, 0.95)
    return np.array([[-1, -w], [neck, -w], [neck, -head], [1, 0], [neck, head], [neck, w], [-1, w]])


def _bolt(rng: np.random.Generator) -> np.ndarray:
    k = rng.uniform(0.1, 0.3)
    return np.array(
        [[0.3, -1], [-0.65, 0.15], [-0.05, 0.15 - k / 3], [-0.35, 1], [0.65, -0.2], [k / 3, -0.15], [0.7, -1]]
    )


def _hourglass(rng: np.random.Generator) -> np.ndarray:
    w, k = rng.uniform(0.65, 0.95), rng.uniform(0.08, 0.25)
    return np.array([[-w, -1], [w, -1], [k, 0], [w, 1], [-w, 1], [-k, 0]])


def _house(rng: np.random.Generator) -> np.ndarray:
    eaves, w, door = rng.uniform(-0.25, 0.05), rng.uniform(0.65, 0.8), rng.uniform(0.15, 0.28)
    return np.array(
        [
            [0, -1],
            [1, eaves],
            [w, eaves],
            [w, 1],
            [door, 1],
            [door, 0.45],
            [-door, 0.45],
            [-door, 1],
            [-w, 1],
            [-w, eaves],
            [-1, eaves],
        ]
    )


SHAPES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "triangle": _triangle,
    "square": _square,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "crescent": _crescent,
    "arrow": _arrow,
    "bolt": _bolt,
    "hourglass": _hourglass,
    "house": _house,
}


def draw_shape(name: str, rng: np.random.Generator) -> np.ndarray:
    """The alpha of a fresh object of class `name`: float32 (GLYPH, GLYPH) in [0, 1], filled or outlined."""
    points = SHAPES[name](rng)
    points = points + rng.normal(0, 0.035, points.shape) * (len(points) < 20)
    shear, aspect = rng.normal(0, 0.12), np.exp(rng.normal(0, 0.12))
    points = points @ np.array([[aspect, 0.0], [shear, 1 / aspect]])
    points = points / np.abs(points).max() * 0.9
    fine = GLYPH * _FINE
    pixels = np.round((points + 1) / 2 * fine * 16).astype(np.int32)
    alpha = np.zeros((fine, fine), np.uint8)
    if rng.random() < 0.6:
        cv2.fillPoly(alpha, [pixels], 255, shift=4)
    cv2.polylines(alpha, [pixels], True, 255, thickness=int(rng.integers(7, 13)), shift=4)
    return cv2.resize(alpha, (GLYPH, GLYPH), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
