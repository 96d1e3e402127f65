"""The versions of an audit's pictures, as a set that the row engine reads: each picture once, each version once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from relevit.auditing.conditions import CONDITIONS, ORIGINAL, Donors, Scene, background_of
from relevit.auditing.pictures import AuditPictures
from relevit.data.sets import Item
from relevit.errors import UserError
from relevit.evaluation.batches import Framing
from relevit.models.view import EvaluationView

_KEPT = 512  # scenes and backgrounds in memory at most
IMPOSSIBLE = "this version of the picture cannot be made"


class Versions:
    """The pictures of every condition, made when they are needed; scenes and filled backgrounds are kept a while."""

    def __init__(self, pictures: AuditPictures, donors: Donors) -> None:
        self.donors = donors
        self.scene: Callable[[int], Scene] = lru_cache(_KEPT)(pictures.scene)
        self.filled: Callable[[int], np.ndarray] = lru_cache(_KEPT)(lambda number: background_of(self.scene(number)))

    def picture(self, condition: str, number: int) -> np.ndarray | None:
        """uint8 (height, width, 3); None where it cannot be made."""
        return CONDITIONS[condition].make(number, self.scene(number), self.donors, self.filled)


class AuditSet:
    """The pictures of an audit as a set of the row engine: read, one gives its versions, each made once."""

    def __init__(self, pictures: AuditPictures, donors: Donors) -> None:
        self.pictures, self._versions = pictures, Versions(pictures, donors)

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, place: int) -> OneAndItsVersions:
        """The picture at a place; raises UserError for one that cannot be read."""
        return OneAndItsVersions(self._versions, place)

    def item(self, place: int, sample: Any = None) -> Item:
        """What is known of a picture."""
        shown = self.pictures.objects
        return Item(
            place,
            self.pictures.names[place],
            self.pictures.classes[place],
            None if shown is None else str(shown[place]),
        )

    def identity(self) -> dict[str, Any]:
        """A hash of names and classes, and of what is in the first, the middle and the last picture and mask."""
        listed = "\n".join(map("\0".join, zip(self.pictures.names, self.pictures.classes, strict=True)))
        digest = hashlib.blake2b(listed.encode("utf-8", "surrogateescape"), digest_size=16)
        for place in sorted({0, len(self) // 2, len(self) - 1}):
            for plane in self.pictures.scene(place):
                digest.update(np.ascontiguousarray(plane).tobytes())
        return {"pictures": len(self), "names and contents": digest.hexdigest()}


class OneAndItsVersions:
    """A picture's scene, and its picture in each condition."""

    def __init__(self, versions: Versions, place: int) -> None:
        self.scene = versions.scene(place)
        self.picture = lru_cache(len(CONDITIONS))(lambda condition: versions.picture(condition, place))


@dataclass(frozen=True, eq=False)
class VersionFraming:
    """A picture in a condition as the model sees it; as it is, with the mask in the same frame."""

    view: EvaluationView
    condition: str

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for framings that give the same tensors."""
        return self.condition, *Framing(self.view).key

    def __call__(self, made: OneAndItsVersions) -> tuple[Tensor, ...]:
        """Raises UserError where the version cannot be made."""
        picture = made.picture(self.condition)
        if picture is None:
            raise UserError(IMPOSSIBLE)
        if self.condition != ORIGINAL:
            return (self.view(picture),)
        framed = self.view.with_mask(picture, made.scene.mask)
        return framed.image, framed.mask
