"""What the progress bars of the row engine are told."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from relevit.evaluation import engine


def advances(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that fills with the numbers of images that are done."""
    told: list[int] = []

    @contextmanager
    def progress(name: str, total: int | None = None, done: int = 0) -> Iterator[object]:
        yield told.append

    monkeypatch.setattr(engine, "progress", progress)
    return told
