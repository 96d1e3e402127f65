"""Atomic writing of files and folders: after a crash at any moment a reader finds the old content or the new, never a
mix.

`atomic_write` replaces one file, `atomic_folder` a folder of files. Both write beside the target under a temporary name
(`.NAME.tmp-...`), flush to the disk, and rename. What a killed process left behind is removed by the next write to the
same target, or by the next owner of the folder (`folders.OwnedFolder`). There is to be one writer for a target at a time;
readers may come at any time.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from relevit.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_TEMPORARY = ".tmp-"

_owned: dict[str, Callable[[], None]] = {}  # folders that this process owns, each with the check that it is still there


def atomic_write(path: str | os.PathLike[str], content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write `content` (bytes, text as UTF-8, or a callback that gets the open binary file) to `path`, atomically.

    Missing parent folders are made. Raises UserError when the disk is full or the place cannot be written, and where the
    folder that this process owns was deleted; an existing file is then as it was.
    """
    path = Path(path)
    with clear_errors(path):
        _make_parent(path)
        temporary = _temporary(path)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
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
    with clear_errors(folder):
        _make_parent(folder)
        temporary = _temporary(folder)
        temporary.mkdir()
        try:
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
        if name.startswith(f".{target.name}{_TEMPORARY}"):
            _remove(target.parent / name)


def remove_all_leftovers(root: Path) -> None:
    """Remove the temporary files and folders that killed writers left anywhere below `root`."""
    for folder, inner, names in os.walk(root):
        for name in [*inner, *names]:
            if name.startswith(".") and _TEMPORARY in name:
                _remove(Path(folder, name))
        inner[:] = [name for name in inner if _TEMPORARY not in name]


@contextmanager
def owned(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """A context in which this process alone writes below `folder`: `check`, called before every write there, raises when
    the folder is gone, so that no writer makes it anew; what killed writers left is taken to be removed already."""
    key = os.path.realpath(folder)
    _owned[key] = check
    try:
        yield
    finally:
        _owned.pop(key, None)


@contextmanager
def clear_errors(target: Path) -> Iterator[None]:
    """A context whose errors of the operating system become a UserError about `target`, which was to be written."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise explained(error, target) from error
    except Exception as error:  # libraries in other languages (safetensors) tell of the system's error in words
        if "(os error 28)" in str(error) or "No space left" in str(error) or "(os error 27)" in str(error):
            raise explained(OSError(errno.ENOSPC, "No space left"), target) from error
        raise


def explained(error: OSError, target: Path) -> UserError:
    """What an error of the operating system means for the user who wants `target` written."""
    if error.errno in _FULL:
        return UserError(
            f"The disk is full: {target} could not be written, what was there before is unharmed. "
            "Free some space and start the same command again."
        )
    return UserError(f"{target} could not be written ({error.strerror or error}): choose a place that can be written.")


def _make_parent(path: Path) -> None:
    """The folder for `path`, made if need be; where nobody owns it, without what a killed writer of `path` left."""
    place = os.path.realpath(path.parent)
    checks = [check for root, check in _owned.items() if place == root or place.startswith(root + os.sep)]
    for check in checks:
        check()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not checks:
        remove_leftovers(path)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}{_TEMPORARY}{secrets.token_hex(4)}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
