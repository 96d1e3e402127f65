"""Shift tests of one's own: which object goes onto which background, where, how large and how turned; and the pictures.

In the manner of SI-Score (Djolonga et al., "On Robustness and Transferability of Convolutional Neural Networks", CVPR
2021): `location`, `size`, `rotation` vary one property of the object over a grid of values, on scenes of a folder. An
object has the same backgrounds at every value of a set, so that nothing but the property changes; the grids are ours.

In the manner of the Backgrounds Challenge (Xiao et al., "Noise or Signal", ICLR 2021): `original`, `only_fg` (on black),
`only_bg` (the object replaced), `mixed_same`, `mixed_rand`, `mixed_next` (on the background of another picture of its own
class, of a class drawn at random, its own among them, of the next class in sorted order). The object's bounding box is
filled, as in the paper's Only-BG-T, for the outline of an object would tell its class; `fill_object` moves the picture
itself over it, where the paper tiles. Pictures are scaled to a short side of
`size` and keep their whole frame.

Every draw has a stream of its own, from the seed, the set and the object's file name: a composition is the same in a
subset, and whatever the order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from relevit.data.composition.compose import (
    Cutout,
    as_picture,
    box_around,
    cover,
    cropped,
    cut_out,
    fill_object,
    put,
    resize,
    scale_for,
    scaled,
    turned,
)
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.images import read_image

SI_SCORE = ("location", "size", "rotation")
MIXED = ("mixed_same", "mixed_rand", "mixed_next")
SETS = (*SI_SCORE, "original", "only_fg", "only_bg", *MIXED)
_CENTRE = 0.5


@dataclass(frozen=True)
class Settings:
    """How sets are composed. Raises UserError for values out of range.

    Attributes:
        seed: of all draws.
        size: pixels, see `Sources`.
        repeats: backgrounds that are drawn for each object (all values share them): different ones, fewer where there are
            not as many; but `mixed_rand` draws a class and a picture anew each time, so that one may come twice.
        limit: compositions of a set, drawn by `seed`; None for all.
        suffix: of pictures.
        positions: of the object's centre in the SI-Score-like sets, shares of width and height.
        areas: of the object, shares of the picture's.
        angles: degrees counterclockwise.
        area: of the object where it does not vary.
    """

    seed: int = 0
    size: int = 224
    repeats: int = 1
    limit: int | None = None
    suffix: str = ".png"
    positions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)
    areas: Sequence[float] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    angles: Sequence[float] = tuple(float(angle) for angle in range(0, 360, 20))
    area: float = 0.2

    def __post_init__(self) -> None:
        for name, least in (("size", 8), ("repeats", 1), ("limit", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise UserError(f"{name} must be a whole number of at least {least}, not {value!r}")
        if self.suffix not in (".png", ".jpg"):
            raise UserError(f"pictures are written as .png or .jpg, not as {self.suffix!r}")
        for name in ("positions", "areas", "angles"):
            values = getattr(self, name)
            if not values or len({f"{value:g}" for value in values}) < len(values):
                raise UserError(f"{name} must be one or several different numbers, not {list(values)}")
        for name, values, above in (("positions", self.positions, -1e-9), ("areas", (*self.areas, self.area), 0.0)):
            wrong = [value for value in values if not above < value <= 1]
            if wrong:
                low = "0 to 1" if name == "positions" else "above 0 and at most 1"
                raise UserError(f"{name} are shares of the picture, {low}, not {wrong[0]:g}")
        if not all(np.isfinite(angle) for angle in self.angles):
            raise UserError(f"angles must be degrees, not {list(self.angles)}")


class Composition(NamedTuple):
    """One picture of a set, a row of the manifest: everything that it is made of.

    set: one of SETS. file: the picture below SET/images, CLASS/NAME. class_name: of the object. object: its file below
    the folder of images. background: a file below the folder of backgrounds (location, size, rotation) or of images (the
    picture that is filled); empty for black. background_class: the folder of that file. repeat: counts the backgrounds
    of an object from 1. x, y: the object's centre. area: the share of the picture that the object has before it is cut
    off at the border. scale: of the object's sides. angle: degrees counterclockwise. None: does not apply.
    """

    set: str
    file: str
    class_name: str
    object: str
    background: str = ""
    background_class: str = ""
    repeat: int = 1
    x: float | None = None
    y: float | None = None
    area: float | None = None
    scale: float | None = None
    angle: float | None = None


class _Scene(NamedTuple):
    """A picture with its object at the output's scale: uint8 (height, width, 3), and the mask (height, width)."""

    picture: np.ndarray
    mask: np.ndarray


class Sources:
    """The pictures that compositions are made of: read when they are needed, the latest kept in memory.

    samples: pictures with masks, from the folder `masks`, or cut-outs with alpha (None). backgrounds: a folder of scenes, for the SI-Score-like sets.
    size: pixels, of both sides where an object is put on a scene, of the short side elsewhere.
    """

    def __init__(self, samples: ImageSet, backgrounds: Path | None, size: int, masks: Path | None) -> None:
        self.samples, self.root, self.size, self.masks = samples, backgrounds, size, masks
        self.cut_outs = masks is None
        self._numbers = {name: number for number, name in enumerate(samples.names)}
        self.object: Callable[[str], Cutout] = lru_cache(4)(self._object)  # pictures may be large
        self.in_place: Callable[[str], Cutout] = lru_cache(64)(self._in_place)
        self.scene: Callable[[str], _Scene] = lru_cache(256)(self._scene)
        self.filled: Callable[[str], np.ndarray] = lru_cache(256)(self._filled)
        self.background: Callable[[str], np.ndarray] = lru_cache(1024)(self._background)

    def _object(self, name: str) -> Cutout:
        sample = self.samples[self._numbers[name]]
        return cropped(cut_out(as_picture(sample.image), sample.foreground))

    def _in_place(self, name: str) -> Cutout:
        """The object in its picture's whole frame, cut out before the frame is resized: no colour of the old background."""
        sample = self.samples[self._numbers[name]]
        whole = cut_out(as_picture(sample.image), sample.foreground)
        return Cutout(*(resize(values, self._frame(sample.foreground.shape)) for values in whole))

    def _scene(self, name: str) -> _Scene:
        sample = self.samples[self._numbers[name]]
        picture, mask = as_picture(sample.image), np.asarray(sample.mask, np.float32)
        return _Scene(resize(picture, self._frame(mask.shape)), resize(mask, self._frame(mask.shape)))

    def _frame(self, shape: tuple[int, int]) -> tuple[int, int]:
        """A picture's (height, width) when its short side is `size`."""
        height, width = (max(self.size, round(side * self.size / min(shape))) for side in shape)
        return height, width

    def _filled(self, name: str) -> np.ndarray:
        scene = self.scene(name)
        return fill_object(scene.picture, box_around(scene.mask))

    def _background(self, name: str) -> np.ndarray:
        assert self.root is not None  # planned only where there is a folder
        return cover(as_picture(read_image(self.root / name)), (self.size, self.size))


def stream(seed: int, *parts: str) -> np.random.Generator:
    """A stream of random numbers of its own for what `parts` name, the same on every machine."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "big")])


def plan_set(
    name: str,
    sources: Sources,
    backgrounds: Sequence[str],
    settings: Settings,
    scale_of: Callable[[str, float], float],
) -> list[Composition]:
    """Every composition of the set `name`, by object, value and repeat.

    `backgrounds` are files below `sources.root`. `scale_of(object, area)` gives the scale, see `scale_of_object`. A picture
    alone in its class has no `mixed_same`; with a single picture in all there is no `mixed_rand`, with a single class no
    `mixed_next`.
    """
    seed, repeats, suffix = settings.seed, settings.repeats, settings.suffix
    classes: dict[str, list[str]] = {}
    for name_of, group in zip(sources.samples.names, sources.samples.groups or (), strict=True):
        classes.setdefault(group, []).append(name_of)
    found: list[Composition] = []
    for class_name, objects in sorted(classes.items()):
        for each in objects:
            stem = each[: len(each) - len(Path(each).suffix)]
            base = Composition(name, f"{stem}{suffix}", class_name, each)
            if name in SI_SCORE or (name == "only_fg" and sources.cut_outs):
                drawn = _some(backgrounds, repeats, stream(seed, name, each)) if name in SI_SCORE else [""]
                for x, y, area, angle, label in _values(name, settings):
                    for number, scene in enumerate(drawn, 1):
                        file = f"{stem}{label}{f'_b{number}' if scene else ''}{suffix}"
                        at = base._replace(file=file, background=scene, background_class=_folder(scene), repeat=number)
                        found.append(at._replace(x=x, y=y, area=area, scale=scale_of(each, area), angle=angle))
            elif name in MIXED:
                for number, scene in enumerate(_others(name, each, class_name, classes, repeats, seed), 1):
                    at = base._replace(file=f"{stem}_b{number}{suffix}", background=scene, repeat=number)
                    found.append(at._replace(background_class=scene.split("/")[0]))
            elif name == "only_fg":
                found.append(base)
            else:  # its own background
                found.append(base._replace(background=each, background_class=class_name))
    return _limited(found, settings.limit, seed)


def scale_of_object(sources: Sources) -> Callable[[str, float], float]:
    """A function (object, area) -> scale that reads each object once."""
    unit = lru_cache(None)(lambda name: scale_for(sources.object(name), 1.0, sources.size**2))
    return lambda name, area: unit(name) * float(np.sqrt(area))


def render(
    composition: Composition, sources: Sources
) -> tuple[UInt8[np.ndarray, "height width 3"], Float[np.ndarray, "height width"]]:
    """The picture of a row of the manifest, and the mask of its object: what is visible of it, 0 to 1; of `only_bg`, 0."""
    kind = composition.set
    if composition.scale is not None and composition.x is not None and composition.y is not None:
        square = (sources.size, sources.size, 3)
        behind = sources.background(composition.background) if composition.background else np.zeros(square, np.uint8)
        cutout = _placed(sources.object(composition.object), composition.scale, composition.angle or 0.0)
        return put(cutout, behind, composition.x, composition.y)
    scene = sources.scene(composition.object)
    if kind == "original":
        return scene
    if kind == "only_bg":
        return sources.filled(composition.object), np.zeros_like(scene.mask)
    behind = np.zeros_like(scene.picture)
    if composition.background:
        behind = cover(sources.filled(composition.background), scene.mask.shape)
    return put(sources.in_place(composition.object), behind, _CENTRE, _CENTRE)


def _placed(cutout: Cutout, scale: float, angle: float) -> Cutout:
    """Turned at twice the final size at most, then shrunk: as sharp at every angle, and quick for large pictures."""
    if scale < 0.5:
        cutout, scale = scaled(cutout, 2 * scale), 0.5
    return scaled(turned(cutout, angle), scale)


def _values(name: str, grid: Settings) -> list[tuple[float, float, float, float, str]]:
    """The object's x, y, area and angle at each value of the grid, and the value as it stands in a file's name."""
    if name == "location":
        return [(x, y, grid.area, 0.0, f"_x{x:g}_y{y:g}") for y in grid.positions for x in grid.positions]
    if name == "size":
        return [(_CENTRE, _CENTRE, area, 0.0, f"_area{area:g}") for area in grid.areas]
    if name == "rotation":
        return [(_CENTRE, _CENTRE, grid.area, angle, f"_angle{angle:g}") for angle in grid.angles]
    return [(_CENTRE, _CENTRE, grid.area, 0.0, "")]


def _some(items: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` different items in random order; a smaller count is the beginning of a larger one."""
    return [items[number] for number in rng.permutation(len(items))[:count]]


def _others(
    name: str, each: str, class_name: str, classes: Mapping[str, Sequence[str]], repeats: int, seed: int
) -> list[str]:
    """The pictures whose backgrounds an object is put on, by the rule of a mixed set."""
    rng = stream(seed, name, each)
    if name == "mixed_same":
        return _some([other for other in classes[class_name] if other != each], repeats, rng)
    order = sorted(classes)
    if name == "mixed_next":
        following = order[(order.index(class_name) + 1) % len(order)]
        return _some(classes[following], repeats, rng) if following != class_name else []
    drawn = []
    possible = [one for one in order if one != class_name or len(classes[one]) > 1]
    for _ in range(repeats if possible else 0):
        chosen = possible[rng.integers(len(possible))]
        members = [other for other in classes[chosen] if other != each]
        drawn.append(members[rng.integers(len(members))])
    return drawn


def _limited(found: list[Composition], limit: int | None, seed: int) -> list[Composition]:
    """`limit` of the compositions: those with the smallest random keys. Keys leave out the set, so that the sets of the
    Backgrounds Challenge keep the same objects; and a smaller limit keeps some of a larger one's."""
    if limit is None or len(found) <= limit:
        return found
    keys = [stream(seed, "limit", str((c.object, c.repeat, c.x, c.y, c.area, c.angle))).random() for c in found]
    return [found[number] for number in sorted(np.argsort(keys, kind="stable")[:limit])]


def _folder(scene: str) -> str:
    return scene.rpartition("/")[0]


def chosen_sets(wanted: Iterable[str], cut_outs: bool, with_backgrounds: bool) -> list[str]:
    """The sets to make, in the order of SETS, of cut-outs or whole pictures, with or without a folder of scenes.

    "all" stands for all that are possible. Raises UserError for others.
    """
    names = list(dict.fromkeys(wanted))
    possible = [
        name
        for name in SETS
        if (name in SI_SCORE and with_backgrounds) or name == "only_fg" or (name not in SI_SCORE and not cut_outs)
    ]
    for name in names:
        if name == "all" or name in possible:
            continue
        if name not in SETS:
            raise UserError(f"unknown set {name!r}: choose among all, {', '.join(SETS)}")
        if name in SI_SCORE:
            raise UserError(f"the set {name} needs scenes to put objects on: give --backgrounds, a folder of pictures")
        raise UserError(
            f"the set {name} needs whole pictures, and cut-outs (objects with alpha) have no background of their own: give "
            f"--masks (the folder of images itself, if the alpha of whole pictures is meant), or choose among {', '.join(possible)}"
        )
    return [name for name in SETS if name in (possible if "all" in names else names)]
