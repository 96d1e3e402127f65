"""What is known of an image that is measured, beside its pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Advance = Callable[[int], Any]  # called with how many images are done since the last time


class Item(NamedTuple):
    """What is known of an image beside its pixels: its name, its class by name, and what it shows."""

    name: str
    group: str
    object: str


class LeftOut(NamedTuple):
    """An image that does not count, and why."""

    name: str
    reason: str
