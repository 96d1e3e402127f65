"""Rows in a folder: small shards, what is on the disk, and a program that is interrupted."""

from pathlib import Path
from typing import Any

import pytest

from relevit.evaluation import shards
from relevit.evaluation.folder import RowsFolder


def small_shards(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """All shards have so many images."""
    monkeypatch.setattr(shards, "LEAST", size)
    monkeypatch.setattr(shards, "MOST", size)


def files(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Relative name -> content of every visible file."""
    found = (path for path in sorted(folder.rglob(pattern)) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder takes so many files of rows, then the program is interrupted."""
    plain, left = RowsFolder.write, [count]

    def write(*arguments: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        plain(*arguments)

    monkeypatch.setattr(RowsFolder, "write", write)
