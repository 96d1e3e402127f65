"""Atomic writing of files and folders: after a crash at any moment a reader finds the old content or the new, never a
mix.

`atomic_write` replaces one file, `atomic_folder` a folder of files. Both write beside the target under a temporary name
(`.NAME.tmp-...`), flush to the disk, and rename. What a killed process left behind is removed by the next write to the
same target. There is to be one writer for a target at a time; readers may come at any time.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from relevit.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_STATUS = Path("/proc/self/status")  # of Linux
_umask_lock = threading.Lock()
_umask_seen: list[int] = []  # where it is not in _STATUS


def atomic_write(path: str | os.PathLike[str], content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write `content` (bytes, text as UTF-8, or a callback that gets the open binary file) to `path`, atomically.

    Missing parent folders are made. Raises UserError when the disk is full or the place cannot be written; an existing
    file is then as it was.
    """
    path = Path(path)
    with _clear_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        descriptor, temporary = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


@contextmanager
def atomic_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A context that yields an empty temporary folder, and puts it in the place of `folder` when the block ends well.

    An existing folder is exchanged with the new one in a single step (Linux), then removed. Where the system has no
    such step, the files are replaced one by one in the order of their names backwards: each is whole at any time, but a
    crash in between can leave files of both. When the block raises, `folder` is as it was. Raises UserError as
    `atomic_write`.
    """
    folder = Path(folder)
    if folder.is_symlink():
        folder = folder.resolve()
    with _clear_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent))
        try:
            os.chmod(temporary, 0o777 & ~_umask())
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    with open(file, "rb+") as opened:
                        os.fsync(opened.fileno())
            for inner in [
                temporary,
                *(file for file in temporary.rglob("*") if file.is_dir() and not file.is_symlink()),
            ]:
                _sync_folder(inner)
            _put(temporary, folder)
            _sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(target: str | os.PathLike[str]) -> None:
    """Remove the temporary files and folders that a killed writer of `target` left beside it."""
    target = Path(target)
    for name in os.listdir(target.parent):
        if name.startswith(_prefix(target)):
            left = target.parent / name
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _prefix(target: Path) -> str:
    return f".{target.name}.tmp-"


def _put(new: Path, place: Path) -> None:
    """Move the folder `new` to `place`; what was there is then at `new`, or gone."""
    if not place.exists():
        os.rename(new, place)
    elif not _exchange(new, place):
        for file in sorted((file for file in new.rglob("*") if file.is_file()), reverse=True):
            (place / file.relative_to(new)).parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place / file.relative_to(new))
        _sync_folder(place)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step by renameat2(2) with RENAME_EXCHANGE; False where there is no such call."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # a C library without it
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # a file system or a kernel without it
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename outlasts a power cut; some systems cannot and need not."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    """The process's umask. Linux tells it; elsewhere it can be read only by setting it, which concerns all threads: that
    is done once, at the first use."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except OSError:
        pass
    with _umask_lock:
        if not _umask_seen:
            current = os.umask(0o077)
            os.umask(current)
            _umask_seen.append(current)
    return _umask_seen[0]


@contextmanager
def _clear_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise _explained(error, target) from error
    except (
        Exception
    ) as error:  # libraries in other languages (safetensors) tell of the operating system's error in words
        if "(os error 28)" in str(error) or "No space left" in str(error) or "(os error 27)" in str(error):
            raise _explained(OSError(errno.ENOSPC, "No space left"), target) from error
        raise


def _explained(error: OSError, target: Path) -> UserError:
    if error.errno in _FULL:
        return UserError(
            f"The disk is full: {target} could not be written, what was there before is unharmed. "
            "Free some space and start the same command again."
        )
    return UserError(f"{target} could not be written ({error.strerror or error}): choose a place that can be written.")
