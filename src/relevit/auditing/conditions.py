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
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from relevit.data.composition.compose import box_around, cover, cut_out, fill_object, put
from relevit.data.composition.shift_tests import stream

GREY = 128  # of 255, behind the object where the background is removed: the middle, which tells no class
BLUR = (
    0.1  # standard deviation of the blur, as a share of the picture's short side: only large patches of colour remain
)


class Scene(NamedTuple):
    """A picture, uint8 (height, width, 3), and the mask of its object, float32 (height, width) in [0, 1]."""

    picture: UInt8[np.ndarray, "height width 3"]
    mask: Float[np.ndarray, "height width"]


class Donors(NamedTuple):
    """For each picture, the number of the picture whose background it gets; -1 where there is none to be had."""

    own: np.ndarray  # another picture of its class
    other: np.ndarray  # a picture of another class


Filled = Callable[
    [int], UInt8[np.ndarray, "height width 3"]
]  # the number of a picture to its background, object filled


class Condition(NamedTuple):
    """A row of CONDITIONS. words: what was done; short: the same as the head of a narrow column. description: how. make: (number, scene, donors,
    filled) -> the picture, None where it cannot be made."""

    words: str
    short: str
    description: str
    make: Callable[[int, Scene, Donors, Filled], np.ndarray | None]


def _as_is(number: int, scene: Scene, donors: Donors, filled: Filled) -> np.ndarray:
    return scene.picture


def _on(donor: int, scene: Scene, filled: Filled) -> np.ndarray | None:
    if donor < 0:
        return None
    return put(cut_out(*scene), cover(filled(donor), scene.mask.shape), 0.5, 0.5)[0]


def _removed(number: int, scene: Scene, donors: Donors, filled: Filled) -> np.ndarray:
    return put(cut_out(*scene), np.full_like(scene.picture, GREY), 0.5, 0.5)[0]


def _blurred(number: int, scene: Scene, donors: Donors, filled: Filled) -> np.ndarray:
    """The background without its object is blurred, so that the object's colours do not run into it."""
    sigma = BLUR * min(scene.mask.shape)
    behind = cv2.GaussianBlur(filled(number), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return put(cut_out(*scene), behind, 0.5, 0.5)[0]


def _object_removed(number: int, scene: Scene, donors: Donors, filled: Filled) -> np.ndarray:
    return filled(number)


ORIGINAL, OWN, OTHER, ALONE = "original", "own_background", "other_background", "object_removed"
CONDITIONS: dict[str, Condition] = {
    ORIGINAL: Condition("as they are", "as is", "the picture itself", _as_is),
    OWN: Condition(
        "another background of the same class",
        "own class",
        "the object on the background of another picture of its class, the object in that one filled",
        lambda number, scene, donors, filled: _on(int(donors.own[number]), scene, filled),
    ),
    OTHER: Condition(
        "a background of another class",
        "other class",
        "the object on the background of a picture of another class (drawn by the seed), the object in that one filled",
        lambda number, scene, donors, filled: _on(int(donors.other[number]), scene, filled),
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
        _object_removed,
    ),
}


def draw_donors(names: Sequence[str], classes: Sequence[str], seed: int) -> Donors:
    """Which picture's background each one gets: of its own class any other picture, of the other classes first a class,
    then a picture, all with the same chance. Each draw has a stream of its own, from the seed and the picture's name."""
    members: dict[str, list[int]] = {}
    for number, each in enumerate(classes):
        members.setdefault(each, []).append(number)
    order = sorted(members)
    own, other = np.full(len(names), -1), np.full(len(names), -1)
    for number, (name, each) in enumerate(zip(names, classes, strict=True)):
        same = [one for one in members[each] if one != number]
        if same:
            own[number] = same[stream(seed, "own background", name).integers(len(same))]
        others = [one for one in order if one != each]
        if others:
            rng = stream(seed, "other background", name)
            chosen = members[others[rng.integers(len(others))]]
            other[number] = chosen[rng.integers(len(chosen))]
    return Donors(own, other)


def background_of(scene: Scene) -> UInt8[np.ndarray, "height width 3"]:
    """The picture with the bounding box of its object filled."""
    return fill_object(scene.picture, box_around(scene.mask))
