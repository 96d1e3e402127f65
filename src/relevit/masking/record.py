"""What is known of one image whose mask was made: of its file, of its mask, and what became of it."""

from __future__ import annotations

from typing import NamedTuple

from relevit.masking.refinement import NO_OBJECT, OBJECT

TOO_SMALL, LOW, OVERRIDE, EXCLUDED, UNREADABLE = (
    "too small",
    "low confidence",
    "override",
    "excluded",
    "unreadable",
)
OUTCOMES = (OBJECT, OVERRIDE, NO_OBJECT, TOO_SMALL, LOW, EXCLUDED, UNREADABLE)


class MaskRecord(NamedTuple):
    """One image.

    name: below the folder of masks, with `/` between folders and the image's ending. bytes, modified (nanoseconds), digest:
    what tells whether its file was changed. outcome: one of OUTCOMES; of what is kept for the next call "object", "no object
    found" or "unreadable", then with `fault` as the reason. A mask is there where it is "object" or "override". width,
    height: of the upright picture. pixels: of the mask. The rest as in `masking.quality`; of an override only pixels and
    share are those of the mask.
    """

    name: str
    bytes: int
    modified: int
    digest: str
    outcome: str
    fault: str = ""
    width: int = 0
    height: int = 0
    pixels: int = 0
    confidence: float = 0.0
    eigengap: float = 0.0
    agreement: float = 0.0
    share: float = 0.0
    border: float = 0.0

    @property
    def excludable(self) -> bool:
        """Whether a mask was written, or was left out at the user's wish."""
        return self.outcome in (OBJECT, EXCLUDED)
