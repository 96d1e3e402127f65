"""The built-in benchmark: handwritten digits and drawn shapes on textured habitats, at 48 x 48 pixels, with exact
masks.

The digits are real handwriting (scikit-learn's `load_digits`, 1,797 of them), split once by a fixed seed into training,
validation and test digits. The shapes are drawn afresh from separate streams of random numbers. In the shortcut data,
the background is the habitat of the object's class in most images, as cows stand on pastures; each test set changes one
thing about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from relevit.data.builtin.shapes import GLYPH, SHAPES, draw_shape
from relevit.data.builtin.textures import SEEN_FAMILIES, UNSEEN_FAMILIES, Texture, draw, habitat, random_texture
from relevit.data.composition.compose import blend
from relevit.data.sample import Sample

SIZE = 48  # pixels, both sides
CLASSES = (*(str(digit) for digit in range(10)), *SHAPES)
SET_A = tuple(range(0, len(CLASSES), 2))  # classes whose samples are used for fine-tuning; the others are held out
RELIABILITY = 0.95  # share of the shortcut data whose background is the habitat of the object's class
TEST_SETS = (
    "in_distribution",
    "background_shuffled",
    "background_unseen",
    "location",
    "size",
    "rotation",
    "foreground_only",
)
_SPLITS = {"train": (0, 1197), "validation": (1197, 1397), "test": (1397, 1797)}
_STREAM = {"train": 11, "validation": 22, "test": 33}


@dataclass(frozen=True)
class Objects:
    """Objects to place in pictures: alpha (count, GLYPH, GLYPH) in [0, 1] and labels (count,)."""

    alpha: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class View:
    """How an object is placed: `scale` is its height as a share of the picture's, `angle` in degrees, `overhang` the
    share of it that may leave the picture."""

    scale: tuple[float, float] = (0.4, 0.8)
    angle: float = 10.0
    overhang: float = 0.0
    border: bool = False  # always at the border of the picture


VIEWS = {
    "location": View(scale=(0.4, 0.6), overhang=0.2, border=True),
    "size": View(scale=(0.25, 1.0)),
    "rotation": View(angle=30.0),
}


@dataclass(frozen=True)
class Pictures:
    """A drawn set: images uint8 (n, SIZE, SIZE, 3), masks float32 (n, SIZE, SIZE) in [0, 1], labels, objects' numbers
    (for intervals clustered by object) and the class whose habitat is in the background (-1: none). Indexing yields a
    `Sample`."""

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    objects: np.ndarray
    backgrounds: np.ndarray
    name: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], self.masks[index], int(self.labels[index]), None, f"{self.name}/{index:05d}")

    def subset(self, indices: np.ndarray) -> Pictures:
        """The pictures at `indices`, in that order."""
        i = np.asarray(indices)
        return Pictures(self.images[i], self.masks[i], self.labels[i], self.objects[i], self.backgrounds[i], self.name)


@cache
def handwriting() -> Objects:
    """All digits of `load_digits` in the fixed order of the split, as alpha of GLYPH x GLYPH pixels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(1797).permutation(len(data.target))
    small = (data.images[order] / 16).astype(np.float32)
    margin = 2  # of 32 pixels on each side
    alpha = np.zeros((len(order), GLYPH, GLYPH), np.float32)
    inner = GLYPH - 2 * margin
    for i, picture in enumerate(small):
        big = cv2.resize(picture, (inner, inner), interpolation=cv2.INTER_CUBIC)
        alpha[i, margin:-margin, margin:-margin] = np.clip((big - 0.2) / 0.45, 0, 1)
    return Objects(alpha, data.target[order].astype(np.int64))


def draw_objects(split: str, shapes_per_class: int, seed: int = 0) -> Objects:
    """The digits of `split` (train, validation or test) and `shapes_per_class` shapes drawn for it."""
    first, last = _SPLITS[split]
    digits = handwriting()
    rng = np.random.default_rng((_STREAM[split], seed))
    alpha, labels = [digits.alpha[first:last]], [digits.labels[first:last]]
    for number, name in enumerate(SHAPES):
        alpha.append(np.stack([draw_shape(name, rng) for _ in range(shapes_per_class)]))
        labels.append(np.full(shapes_per_class, 10 + number))
    return Objects(np.concatenate(alpha), np.concatenate(labels))


def place(alpha: np.ndarray, view: View, rng: np.random.Generator) -> np.ndarray:
    """An object's alpha (GLYPH, GLYPH) moved into a picture: float32 (SIZE, SIZE) in [0, 1]."""
    side = SIZE * rng.uniform(*view.scale)  # of the glyph, in pixels of the picture
    angle = np.deg2rad(rng.uniform(-view.angle, view.angle))
    reach = side / 2 * (1 - 2 * view.overhang)
    low, high = min(reach, SIZE / 2), max(SIZE - reach, SIZE / 2)
    center = rng.uniform(low, high, 2)
    if view.border:
        axis = rng.integers(2)
        center[axis] = (low, high)[rng.integers(2)]
    shear = rng.normal(0, 0.08)
    c, s = np.cos(angle) * side / GLYPH, np.sin(angle) * side / GLYPH
    matrix = np.array([[c, -s + shear * c], [s, c + shear * s]])
    shift = center - matrix @ np.array([GLYPH / 2, GLYPH / 2])
    warp = np.concatenate([matrix, shift[:, None]], axis=1).astype(np.float32)
    return cv2.warpAffine(alpha, warp, (SIZE, SIZE), flags=cv2.INTER_LINEAR)


def _object_color(texture: Texture, rng: np.random.Generator, contrast: float) -> np.ndarray:
    """A colour at least `contrast` (Euclidean, RGB in [0, 1]) from both of the texture's, the farthest of 20 if none
    is."""
    best, distance = texture.colors[0], -1.0
    for _ in range(20):
        color = rng.uniform(0, 1, 3).astype(np.float32)
        d = float(min(np.linalg.norm(color - other) for other in texture.colors))
        if d > distance:
            best, distance = color, d
        if distance >= contrast:
            break
    return best


def compose_picture(
    alpha: np.ndarray,
    texture: Texture,
    view: View,
    rng: np.random.Generator,
    contrast: float = 0.35,
    whiten: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """An object on a texture: image uint8 (SIZE, SIZE, 3) and its exact mask float32 (SIZE, SIZE).

    The object's colour is at least `contrast` away from the texture's two, then moved towards white by `whiten`.
    """
    background = draw(texture, SIZE, rng)
    mask = place(alpha, view, rng)
    color = _object_color(texture, rng, contrast)
    color = color + np.float32(whiten) * (1 - color)
    shade = 1 + 0.15 * rng.standard_normal() * np.linspace(-1, 1, SIZE, dtype=np.float32)[:, None, None]
    image = blend(np.clip(color * shade, 0, 1), mask, background)
    return np.round(image * 255).astype(np.uint8), mask


def _other_class(label: int, rng: np.random.Generator) -> int:
    return int((label + rng.integers(1, len(CLASSES))) % len(CLASSES))


def background(kind: str, label: int, rng: np.random.Generator) -> tuple[Texture, int]:
    """A texture for an object of class `label`, and the class whose habitat it is (-1: none).

    kind: `own`, `shortcut` (own habitat with probability RELIABILITY), `other` (another class's), `any` (any texture of
    the seen families), `unseen` (of the unseen families) or `flat`.
    """
    if kind == "shortcut":
        kind = "own" if rng.random() < RELIABILITY else "other"
    if kind in ("own", "other"):
        source = label if kind == "own" else _other_class(label, rng)
        return habitat(source, len(CLASSES), rng), source
    if kind in ("any", "unseen"):
        return random_texture(rng, SEEN_FAMILIES if kind == "any" else UNSEEN_FAMILIES), -1
    if kind == "flat":
        gray = np.full(3, rng.uniform(0.2, 0.8), np.float32)
        return Texture("stripes", 2.0, 0.0, (0.0, 0.0), 1.0, (gray, gray)), -1
    raise ValueError(f"unknown kind of background {kind!r}")


def draw_pictures(
    objects: Objects, numbers: np.ndarray, kind: str, seed: tuple[int, ...], view: View | None = None, name: str = ""
) -> Pictures:
    """One picture for each of `numbers` (indices into `objects`), each from a random stream of its own: the same
    picture in a subset as in the whole set."""
    view = view or View()
    images = np.empty((len(numbers), SIZE, SIZE, 3), np.uint8)
    masks = np.empty((len(numbers), SIZE, SIZE), np.float32)
    sources = np.empty(len(numbers), np.int64)
    for i, number in enumerate(numbers):
        rng = np.random.default_rng((*seed, i))
        texture, sources[i] = background(kind, int(objects.labels[number]), rng)
        images[i], masks[i] = compose_picture(objects.alpha[number], texture, view, rng)
    return Pictures(images, masks, objects.labels[numbers], np.asarray(numbers), sources, name)


BACKGROUND_OF_SET = {
    "in_distribution": "shortcut",
    "background_shuffled": "other",
    "background_unseen": "unseen",
    "location": "any",
    "size": "any",
    "rotation": "any",
    "foreground_only": "flat",
}


@cache
def test_set(name: str, split: str = "test", views: int = 3) -> Pictures:
    """A test set by name (TEST_SETS): `views` pictures of each of the split's digits and of as many shapes."""
    first, last = _SPLITS[split]
    objects = draw_objects(split, (last - first) // 10)
    numbers = np.tile(np.arange(len(objects.labels)), views)
    seed = (_STREAM[split], TEST_SETS.index(name), 7)
    return draw_pictures(objects, numbers, BACKGROUND_OF_SET[name], seed, VIEWS.get(name), name)


def training_samples(per_class: int, seed: int, classes: tuple[int, ...] = SET_A) -> Pictures:
    """`per_class` samples of each of `classes`, drawn by `seed` from the shortcut data of the training objects."""
    rng = np.random.default_rng((101, seed))
    objects = draw_objects("train", max(120, per_class))
    numbers = np.concatenate(
        [rng.choice(np.flatnonzero(objects.labels == c), per_class, replace=False) for c in classes]
    )
    return draw_pictures(objects, numbers, "shortcut", (102, seed), name=f"train-{seed}")


def validation_samples(per_class: int, seed: int = 0, kind: str = "shortcut") -> Pictures:
    """Validation samples of the held-out classes from the validation objects, of the shortcut data unless `kind` says
    otherwise."""
    held_out = tuple(c for c in range(len(CLASSES)) if c not in SET_A)
    rng = np.random.default_rng((201, seed))
    objects = draw_objects("validation", 20)
    numbers = np.concatenate(
        [rng.choice(np.flatnonzero(objects.labels == c), per_class, replace=True) for c in held_out]
    )
    return draw_pictures(objects, numbers, kind, (202, seed), name=f"validation-{seed}")
