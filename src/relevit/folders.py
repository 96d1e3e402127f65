"""Folders that are ours: whether one may be written to, and how its settings differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations, "about" aside; a line for each key."""
    return [
        f"{key}: {old.get(key)!r} in the folder, {new.get(key)!r} now"
        for key in {**old, **new}
        if key != "about" and old.get(key) != new.get(key)
    ]
