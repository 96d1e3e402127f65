"""Panels: rows of pictures with what models say of them, for any page (the paper's Figures 1 to 3); and which to show.

A page imports `macros.html` and calls `panels(items)`; the style is in `style.css`. What is drawn is drawn by a
seed from images in their own order, so that a page comes out the same each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image

from relevit.report.pictures import enlarged, outlined, overlay

RULES = {
    "corrected": "Wrong before, right after.",
    "unchanged": "The same answer before and after.",
    "ruined": "Right before, wrong after.",
}
_SHOWN = 192  # pixels of a tile: smaller pictures are enlarged to about it, larger ones reduced


@dataclass(frozen=True)
class Answer:
    """What a model says of a picture: who (or of which picture), the class, its probability in [0, 1], whether that is right."""

    who: str
    prediction: str
    confidence: float
    right: bool

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence <= 1.0 + 1e-6:
            raise ValueError(f"a confidence is a probability in [0, 1], got {self.confidence}")


@dataclass(frozen=True)
class Panel:
    """A row: the image's name, its true class, pictures with captions (uint8), and what was answered."""

    name: str
    label: str
    tiles: Sequence[tuple[str, np.ndarray]]
    answers: Sequence[Answer]


def tile(
    picture: UInt8[np.ndarray, "height width 3"],
    relevance: Float[np.ndarray, "height width"] | None = None,
    mask: Float[np.ndarray, "height width"] | None = None,
    dim: float = 0.0,
) -> UInt8[np.ndarray, "tall wide 3"]:
    """A picture at the size of a tile, with a relevance map in [0, 1] over it, and the outline of a mask; what is outside of it
    fades by `dim`."""
    shown = picture if relevance is None else overlay(picture, relevance)
    long = max(shown.shape[:2])
    if long > _SHOWN:
        size = tuple(max(1, round(side * _SHOWN / long)) for side in shown.shape[1::-1])
        shown = np.asarray(Image.fromarray(shown).resize(size, Image.Resampling.LANCZOS))  # type: ignore[arg-type]
        if mask is not None:
            smaller = Image.fromarray(np.asarray(mask, np.float32)).resize(size, Image.Resampling.BOX)  # type: ignore[arg-type]
            mask = np.asarray(smaller)
    if mask is not None:
        return outlined(shown, mask, size=_SHOWN, dim=dim)
    return enlarged(shown, max(1, _SHOWN // max(shown.shape[:2])))


def drawn(
    kinds: Mapping[str, Bool[np.ndarray, " images"]],
    groups: Shaped[np.ndarray, " images"],
    *,
    each: int = 6,
    seed: int = 0,
) -> dict[str, list[int]]:
    """Which images to show of each kind: the first `each` in an order drawn by `seed`, no class twice while there are others.

    kinds: whether an image is of the kind (see RULES). groups: the classes.
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    return {kind: spread(order[members[order]], groups, each) for kind, members in kinds.items()}


def spread(order: Sequence[int] | np.ndarray, groups: Shaped[np.ndarray, " images"], count: int) -> list[int]:
    """The first `count` of the images in `order` with no class twice; where classes do not suffice, the next ones."""
    chosen: list[int] = []
    seen: set[str] = set()
    for number in order:
        if len(chosen) < count and str(groups[number]) not in seen:
            chosen.append(int(number))
            seen.add(str(groups[number]))
    rest = [int(number) for number in order if int(number) not in chosen]
    return [*chosen, *rest[: count - len(chosen)]]
