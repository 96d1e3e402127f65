"""Figures and names as words, the same on pages, in tables and in sentences."""

from __future__ import annotations

import math

from relevit.statistics.estimate import Estimate

DASH, MINUS = "\u2013", "\u2212"  # the dash between figures; the minus that is as wide as the plus


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A figure with a true minus; a dash where there is none; no sign of what rounds to zero. sign: also of what is above 0."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


def signed(points: float) -> str:
    """Percentage points with their sign, one decimal."""
    return number(points, sign=True)


def ends_text(figure: Estimate) -> str:
    """ "88.1-90.3" with an en dash; empty where no interval is known."""
    return "" if figure.low == figure.high else f"{figure.low:.1f}{DASH}{figure.high:.1f}"


def readable(name: str) -> str:
    """A name of the code as words: `background_swap+relevance` becomes `background swap + relevance`."""
    return " + ".join(part.strip().replace("_", " ") for part in name.split("+"))
