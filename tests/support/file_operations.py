"""Every operation on files below a folder, in this process: a place to look at what a kill would leave, or to fail.

A process that is killed leaves what is on the disk at that moment. So one run that is looked at before each of its
operations shows everything that a kill can leave, without a process for each.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.fsync"}
Act = Callable[[str, str], None]

_watched: list[tuple[str, Act]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hooks (PEP 578) are called before each operation and cannot be removed: this one is idle without a watcher."""
    if not _watched or (event not in WRITES and event != "open"):
        return
    if event == "open" and not (
        isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    ):
        return
    path = arguments[1] if event == "os.symlink" else arguments[0]
    if isinstance(path, int) or path is None:
        return
    _tell(event, os.path.abspath(os.fsdecode(path)))


def _tell(event: str, path: str) -> None:
    root, act = _watched[-1]
    if path == root or path.startswith(root + os.sep):
        kept = _watched[:]
        _watched.clear()  # what is done here is not looked at
        try:
            act(event, path)
        finally:
            _watched[:] = kept


_installed: list[bool] = []


@contextmanager
def watched(root: Path, act: Act) -> Iterator[None]:
    """A context in which `act` is called with (operation, path) before every one that writes below `root`; what it raises
    is raised by the operation."""
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    real = os.fsync

    def fsync(descriptor: int) -> None:  # there is no audit event for it
        if _watched:
            _tell("os.fsync", os.path.realpath(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)"))
        real(descriptor)

    _watched.append((os.path.realpath(root), act))
    os.fsync = fsync
    try:
        yield
    finally:
        os.fsync = real
        _watched.clear()


def contents(root: Path) -> dict[str, bytes]:
    """All that is below a folder, by relative names: of files the bytes, of links the target, of empty folders nothing."""
    listed = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            listed[name] = os.fsencode(os.readlink(path))
        elif path.is_file():
            listed[name] = path.read_bytes()
        elif not any(path.iterdir()):
            listed[f"{name}/"] = b""
    return listed


def restore(snapshot: Path, root: Path) -> None:
    """Make `root` what it was when the snapshot was taken."""
    shutil.rmtree(root)
    shutil.copytree(snapshot, root, symlinks=True)


def states(root: Path, snapshots: Path, run: Callable[[], object]) -> tuple[int, list[Path]]:
    """Run once; the number of operations, and copies of what was below `root` before each, equal ones once."""
    operations, seen = 0, dict[str, Path]()

    def look(event: str, path: str) -> None:
        nonlocal operations
        operations += 1
        digest = hashlib.sha256(repr(contents(root)).encode()).hexdigest()
        if digest not in seen:
            seen[digest] = snapshots / f"{len(seen):04d}"
            shutil.copytree(root, seen[digest], symlinks=True)

    with watched(root, look):
        run()
    return operations, list(seen.values())
