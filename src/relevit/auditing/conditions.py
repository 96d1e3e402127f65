"""What an audit does to a picture: its background exchanged, removed or blurred, or its object removed.

Everything is made of the pictures themselves and their masks, with the parts of `data.compose`. The object keeps its place
and is cut out with a soft edge; a background that it is put on is another picture whose object's bounding box is filled
(no outline is left that could tell the class), as in the sets `mixed_same` and `mixed_rand` of `data.shift_tests`.

Pasting leaves traces: edges, fillings, a light that does not fit. `own_background` has the same traces as
`other_background` and differs from it in nothing but the class of the background, so that the two together tell what the
class of the background does, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from relevit.data.composition.compose import as_picture, box_around, cover, cut_out, fill_object, put, resize
from relevit.data.composition.shift_tests import stream
from relevit.data.sets import ImageSet

GREY = 128  # of 255, behind the object where the background is removed: the middle, which tells no class
BLUR = (
    0.1  # standard deviation of the blur, as a share of the picture's short side: only large patches of colour remain
)
_KEPT = 512  # scenes and backgrounds in memory at most


class Scene(NamedTuple):
    """A picture, uint8 (height, width, 3), and the mask of its object, float32 (height, width) in [0, 1]."""

    picture: UInt8[np.ndarray, "height width 3"]
    mask: Float[np.ndarray, "height width"]


class Donors(NamedTuple):
    """For each picture, the number of the picture whose background it gets; -1 where there is none to be had."""

    own: np.ndarray  # another picture of its class
    other: np.ndarray  # a picture of another class


class Versions:
    """The pictures of every condition, made when they are needed; scenes and filled backgrounds are kept a while.

    images: samples with masks. size: where a picture's short side is longer, it is first reduced to this.
    """

    def __init__(self, images: ImageSet, donors: Donors, size: int | None = None) -> None:
        self.images, self.donors, self.size = images, donors, size
        self.scene: Callable[[int], Scene] = lru_cache(_KEPT)(self._scene)
        self.filled: Callable[[int], np.ndarray] = lru_cache(_KEPT)(lambda number: background_of(self.scene(number)))

    def _scene(self, number: int) -> Scene:
        sample = self.images[number]
        picture, mask = as_picture(sample.image), np.asarray(sample.foreground, np.float32)
        short = min(mask.shape)
        if self.size is None or short <= self.size:
            return Scene(picture, mask)
        height, width = (max(self.size, round(side * self.size / short)) for side in mask.shape)
        return Scene(resize(picture, (height, width)), resize(mask, (height, width)))

    def picture(self, condition: str, number: int) -> np.ndarray | None:
        """uint8 (height, width, 3); None where it cannot be made."""
        return CONDITIONS[condition].make(self, number) if self.possible(condition)[number] else None

    def possible(self, condition: str) -> np.ndarray:
        """Of which pictures there is a version in this condition, bool (n,)."""
        lender = CONDITIONS[condition].lender
        return np.ones(len(self.images), bool) if lender is None else getattr(self.donors, lender) >= 0


class Condition(NamedTuple):
    """A row of CONDITIONS. words: what was done; short: the same as the head of a narrow column. description: how. make:
    (versions, number) -> the picture. lender: of `Donors`, who lends the background."""

    words: str
    short: str
    description: str
    make: Callable[[Versions, int], np.ndarray]
    lender: Literal["own", "other"] | None = None


def _put(versions: Versions, number: int, background: np.ndarray) -> np.ndarray:
    """The object of a picture, in its place on a background of the picture's size."""
    return put(cut_out(*versions.scene(number)), background, 0.5, 0.5)[0]


def _exchanged(versions: Versions, number: int, lender: str) -> np.ndarray:
    donor = int(getattr(versions.donors, lender)[number])
    return _put(versions, number, cover(versions.filled(donor), versions.scene(number).mask.shape))


def _removed(versions: Versions, number: int) -> np.ndarray:
    return _put(versions, number, np.full_like(versions.scene(number).picture, GREY))


def _blurred(versions: Versions, number: int) -> np.ndarray:
    """The background without its object is blurred, so that the object's colours do not run into it."""
    sigma = BLUR * min(versions.scene(number).mask.shape)
    return _put(
        versions,
        number,
        cv2.GaussianBlur(versions.filled(number), (0, 0), sigma, borderType=cv2.BORDER_REFLECT),
    )


ORIGINAL, OWN, OTHER, ALONE = "original", "own_background", "other_background", "object_removed"
CONDITIONS: dict[str, Condition] = {
    ORIGINAL: Condition(
        "as they are", "as is", "the picture itself", lambda versions, number: versions.scene(number).picture
    ),
    OWN: Condition(
        "another background of the same class",
        "own class",
        "the object on the background of another picture of its class, the object in that one filled",
        partial(_exchanged, lender="own"),
        "own",
    ),
    OTHER: Condition(
        "a background of another class",
        "other class",
        "the object on the background of a picture of another class (drawn by the seed), the object in that one filled",
        partial(_exchanged, lender="other"),
        "other",
    ),
    "background_blurred": Condition(
        "background blurred",
        "blurred",
        f"the object on its own background, blurred by {BLUR:.0%} of the short side",
        _blurred,
    ),
    "background_removed": Condition("background removed", "removed", f"the object on flat grey ({GREY})", _removed),
    ALONE: Condition(
        "object removed",
        "object removed",
        "the background alone: the bounding box of the object filled from its surroundings",
        lambda versions, number: versions.filled(number),
    ),
}


def draw_donors(names: Sequence[str], classes: Sequence[str], seed: int) -> Donors:
    """Which picture's background each one gets: of its own class any other picture, of the other classes first a class,
    then a picture, all with the same chance. Each draw has a stream of its own, from the seed and the picture's name."""
    members: dict[str, list[int]] = {}
    for number, group in enumerate(classes):
        members.setdefault(group, []).append(number)
    own, other = np.full(len(names), -1), np.full(len(names), -1)
    for number, (name, group) in enumerate(zip(names, classes, strict=True)):
        same = [member for member in members[group] if member != number]
        if same:
            own[number] = same[stream(seed, "own background", name).integers(len(same))]
        others = sorted(members.keys() - {group})
        if others:
            rng = stream(seed, "other background", name)
            chosen = members[others[rng.integers(len(others))]]
            other[number] = chosen[rng.integers(len(chosen))]
    return Donors(own, other)


def background_of(scene: Scene) -> UInt8[np.ndarray, "height width 3"]:
    """The picture with the bounding box of its object filled."""
    return fill_object(scene.picture, box_around(scene.mask))
