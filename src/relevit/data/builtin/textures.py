"""Textured backgrounds, drawn by seed: families of patterns, and one habitat for each class of the built-in benchmark.

A family is a function that fills the picture with values in [0, 1] from a few parameters; two colours turn the values
into a picture. Six families are seen in training, four are kept for the `background_unseen` test set. A habitat is a
family with narrow ranges of its parameters and colours, as a pasture is green, but no two pastures are the same.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

SEEN_FAMILIES = ("stripes", "checks", "blobs", "grain", "dots", "waves")
UNSEEN_FAMILIES = ("rings", "cells", "plaid", "bricks")


@dataclass(frozen=True)
class Texture:
    """One texture: its family, waves over the width of the picture, orientation and phases in radians, contrast edge,
    two RGB colours."""

    family: str
    frequency: float
    angle: float
    phase: tuple[float, float]
    sharpness: float
    colors: tuple[np.ndarray, np.ndarray]


def _coordinates(texture: Texture, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotated and shifted pixel coordinates, in units of the picture's width: two arrays (size, size)."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    c, s = np.float32(np.cos(texture.angle)), np.float32(np.sin(texture.angle))
    u = c * line[None, :] + s * line[:, None]
    v = c * line[:, None] - s * line[None, :]
    period = 2 * np.pi * texture.frequency
    return u + np.float32(texture.phase[0] / period), v + np.float32(texture.phase[1] / period)


def _soft_step(values: np.ndarray, sharpness: float) -> np.ndarray:
    """Values in [-1, 1] to [0, 1], the steeper the sharper."""
    return 0.5 + 0.5 * np.tanh(np.float32(sharpness) * values)


def _smooth_noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    grid = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    big = cv2.resize(grid, None, fx=size / cells, fy=size / cells, interpolation=cv2.INTER_CUBIC)
    return big[:size, :size]


def _values(texture: Texture, size: int, rng: np.random.Generator) -> np.ndarray:
    """The pattern of a texture, (size, size) in [0, 1]."""
    f, sharp = np.float32(2 * np.pi * texture.frequency), texture.sharpness
    family = texture.family
    if family in ("blobs", "grain"):
        cells = max(2, round(texture.frequency * (1.0 if family == "blobs" else 3.0)))
        noise = _smooth_noise(rng, cells, size)
        if family == "grain":
            noise = 0.6 * noise + 0.6 * rng.standard_normal((size, size)).astype(np.float32)
        return _soft_step(noise, sharp if family == "blobs" else 0.8)
    u, v = _coordinates(texture, size)
    if family == "stripes":
        return _soft_step(np.sin(f * u), sharp)
    if family == "checks":
        return _soft_step(np.sin(f * u) * np.sin(f * v) * 1.6, sharp)
    if family == "dots":
        return _soft_step(np.cos(f * u) + np.cos(f * v) - 0.9, sharp)
    if family == "waves":
        return _soft_step(np.sin(f * u + 1.8 * np.sin(0.7 * f * v)), sharp)
    if family == "rings":
        return _soft_step(np.sin(f * np.hypot(u + 0.2, v - 0.1)), sharp)
    if family == "plaid":
        return 0.5 * _soft_step(np.sin(f * u), sharp) + 0.5 * _soft_step(np.sin(1.7 * f * v), sharp)
    if family == "bricks":
        row = np.floor(v * texture.frequency)
        across = (u * texture.frequency / 2 + 0.5 * (row % 2)) % 1
        along = (v * texture.frequency) % 1
        return ((across > 0.12) & (along > 0.2)).astype(np.float32)
    if family == "cells":
        count = max(4, round(texture.frequency**2))
        points = rng.uniform(-0.1, 1.1, (count, 2)).astype(np.float32)
        line = (np.arange(size, dtype=np.float32) + 0.5) / size
        squared = (line[None, :, None] - points[:, 0]) ** 2 + (line[:, None, None] - points[:, 1]) ** 2
        nearest = np.partition(squared, 1, axis=-1)[..., :2]
        return _soft_step(
            (np.sqrt(nearest[..., 1]) - np.sqrt(nearest[..., 0])) * np.float32(3 * texture.frequency) - 0.8, sharp
        )
    raise ValueError(f"unknown texture family {family!r}")


def draw(texture: Texture, size: int, rng: np.random.Generator) -> np.ndarray:
    """A texture as a picture, float32 (size, size, 3) in [0, 1], with a little pixel noise and a slow change of
    light."""
    values = _values(texture, size, rng)[..., None]
    picture = texture.colors[0] * (1 - values) + texture.colors[1] * values
    slope = rng.uniform(-0.12, 0.12, 2).astype(np.float32)
    line = np.linspace(-1, 1, size, dtype=np.float32)
    picture += (slope[0] * line[None, :] + slope[1] * line[:, None])[..., None]
    picture += rng.standard_normal((size, size, 1)).astype(np.float32) * 0.02
    return np.clip(picture, 0, 1)


def random_texture(rng: np.random.Generator, families: tuple[str, ...] = SEEN_FAMILIES) -> Texture:
    """Any texture of the given families, in any two colours."""
    return Texture(
        family=families[rng.integers(len(families))],
        frequency=float(rng.uniform(2.0, 7.0)),
        angle=float(rng.uniform(0, np.pi)),
        phase=(float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0, 2 * np.pi))),
        sharpness=float(rng.uniform(0.8, 3.0)),
        colors=(rng.uniform(0, 1, 3).astype(np.float32), rng.uniform(0, 1, 3).astype(np.float32)),
    )


def habitat(label: int, classes: int, rng: np.random.Generator) -> Texture:
    """A fresh texture of the habitat of class `label`: its family, its hue and about its scale and orientation."""
    hue = (label * 7 % classes) / classes  # neighbouring classes do not get neighbouring hues
    family = SEEN_FAMILIES[label % len(SEEN_FAMILIES)]

    def color(lightness: float) -> np.ndarray:
        h = (hue + rng.normal(0, 0.015)) % 1.0
        light = float(np.clip(lightness + rng.normal(0, 0.06), 0.05, 0.95))
        return np.array(colorsys.hls_to_rgb(h, light, float(rng.uniform(0.35, 0.75))), dtype=np.float32)

    return Texture(
        family=family,
        frequency=float(3.0 + 3.0 * ((label * 5 % classes) / classes) + rng.uniform(-0.4, 0.4)),
        angle=float(np.pi * (label * 3 % classes) / classes + rng.normal(0, 0.15)),
        phase=(float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0, 2 * np.pi))),
        sharpness=float(rng.uniform(1.0, 2.5)),
        colors=(color(0.35), color(0.65)),
    )
