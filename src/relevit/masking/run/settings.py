"""The settings of a run that makes masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from relevit.errors import UserError
from relevit.masking.features import Kind
from relevit.masking.make import check_numbers
from relevit.masking.refinement import MAX_SIDE


@dataclass(frozen=True)
class MaskSettings:
    """How masks are made, which of them are kept, and where the work is done.

    Attributes:
        kind, block: the features that are cut; see `features`.
        refine: whether the bilateral solver refines the cut.
        size: the pictures' short side is first resized to this; None leaves them.
        max_side: pixels of the long side that the backbone sees at most.
        min_confidence, min_pixels: masks below either are left out (protocol: 520 pixels).
        override: a folder of masks that win over those made, under the same relative names.
        exclude: files of names, one a line, of images whose masks are left out.
        batch_size: images in one forward pass.
        workers: processes that read images and refine masks; 0 does it in this one.
        device: where the backbone runs; None takes the accelerator if there is one.
    """

    kind: Kind = "key"
    block: int = -1
    refine: bool = True
    size: int | None = None
    max_side: int = MAX_SIDE
    min_confidence: float = 0.0
    min_pixels: int = 520
    override: str | os.PathLike[str] | None = None
    exclude: Sequence[str | os.PathLike[str]] = ()
    batch_size: int = 16
    workers: int = 0
    device: str | torch.device | None = None

    def check(self) -> None:
        """Raise UserError for a number out of its range."""
        check_numbers(size=self.size, max_side=self.max_side, batch_size=self.batch_size)
        if not 0 <= self.min_confidence <= 1 or self.min_pixels < 0 or self.workers < 0:
            raise UserError("min_confidence must lie in 0 to 1, min_pixels and workers must not be below 0.")

    @property
    def made_with(self) -> dict[str, object]:
        """What the masks of all images depend on; the rest may differ in the next call."""
        return {name: getattr(self, name) for name in ("kind", "block", "refine", "size", "max_side")}
