"""Folders that are ours: one owner for every folder that a command writes.

A command may write to a folder that is empty, or that the same command began with the same settings. Anything else is
refused before any work, with the reason. While a command works in a folder, no other does.

    FOLDER/.relevit/settings.json   who began the folder, with which settings (some commands name a file of their own)
    FOLDER/.relevit/lock            while a command works in the folder: its name, process and host

The lock is the operating system's, not the file: it ends with the process that holds it, however that ends. Of several
processes of one launch (torchrun) the first holds it for all.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from relevit.errors import UserError
from relevit.files import atomic_write, clear_errors, explained, owned, remove_all_leftovers
from relevit.processes import is_first

HIDDEN = ".relevit"  # the folder of what is of no use to the user
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}  # of file systems that know none
_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}


class OwnedFolder:
    """The folder `path` of the command `kind`, for results with these settings.

    Opening only reads. `with folder:` holds the folder: it makes it, writes the settings, and keeps other commands out.

    Attributes:
        settings: what json makes of the settings. They may be changed before the folder is held.
        earlier: the settings that stand in the folder, None where it was not begun.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: str,
        settings: Mapping[str, Any] | None,
        *,
        may_hold: Collection[str] | None = (),
        record: str = f"{HIDDEN}/settings.json",
        result: str | None = None,
        compare: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]] | None = None,
    ) -> None:
        """Look whether the folder may be used.

        Args:
            path: the folder; it need not exist.
            kind: the command, such as "relevit audit".
            settings: what the result depends on. "about" is kept, but not compared. None: not known yet, so that only
                folders of others are refused.
            may_hold: names beside the record that the folder may hold although it was not begun; None: any.
            record: the file of the settings, by its relative name.
            result: the file that marks the end, by its relative name; a folder that has it is refused.
            compare: what differs between the earlier settings and these, a line for each; by default `differences`.

        Raises:
            UserError: the path is a file, or holds anything else, or results of other settings.
        """
        self.path, self.kind = Path(path), kind
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings or {})))
        self._may_hold, self._record, self._result = may_hold, self.path / record, result
        self._compare = compare or (differences if settings is not None else lambda old, new: [])
        self._held: ExitStack | None = None
        self._check: Callable[[], None] = lambda: None
        self.earlier = self._read()

    def _read(self) -> dict[str, Any] | None:
        """The settings that stand in the folder, None if it was not begun. Raises UserError for one that is not ours."""
        if (self.path.exists() or self.path.is_symlink()) and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose a folder for the results.")
        if self._result is not None and (self.path / self._result).exists():
            self.tidy()
            raise UserError(
                f"{self.path} is finished, {self._result} is there already: choose another folder or remove it, nothing is "
                "overwritten."
            )
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._refuse_foreign()
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{self._record} cannot be read ({error}): choose another folder.") from error
        kind = found.pop("written_by", None) if isinstance(found, dict) else None
        if kind != self.kind:
            written = (
                f"was written by {kind}" if isinstance(kind, str) else f"is not empty and was not begun by {self.kind}"
            )
            raise UserError(f"{self.path} {written}: choose another folder, nothing is overwritten.")
        differing = self._compare(found, self.settings)
        if differing:
            raise UserError(
                f"{self.path} was begun with another configuration: {'; '.join(differing)}. Choose another folder, or give "
                "the same arguments to go on with it."
            )
        return found

    def _refuse_foreign(self) -> None:
        if self._may_hold is None or not self.path.is_dir():
            return
        other = sorted(
            name for name in os.listdir(self.path) if not name.startswith(".") and name not in self._may_hold
        )
        if other:
            raise UserError(
                f"{self.path} is not empty and was not begun by {self.kind} (it holds {other[0]}): choose another folder, "
                "nothing is overwritten."
            )

    @property
    def goes_on(self) -> bool:
        """Whether the folder was begun with these very settings."""
        return self.earlier is not None and _compared(self.earlier) == _compared(self.settings)

    def __enter__(self) -> OwnedFolder:
        with ExitStack() as stack:
            if is_first():
                with clear_errors(self.path):
                    self._lock.parent.mkdir(parents=True, exist_ok=True)
                    self._hold(stack)
                self.earlier = self._read()  # as it is now that nobody else writes to it
                if not self.goes_on:
                    text = json.dumps({"written_by": self.kind, **self.settings}, indent=2, ensure_ascii=False)
                    atomic_write(self._record, text + "\n")
            else:
                join(self.path)
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._held is not None
        with self._held:
            if isinstance(error, OSError) and error.errno in _WRITING and self._concerns(error):
                self.check()
                raise explained(error, self.path) from error
            if kind is None and is_first():
                self.check()
        self._held, self._check = None, lambda: None

    def check(self) -> None:
        """Raise UserError if the folder was deleted or replaced since it is held."""
        self._check()

    def forget(self) -> None:
        """Remove the record of the settings: what is in the folder is finished, and the user's."""
        if is_first():
            self._record.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return self.path / HIDDEN / "lock"

    def _hold(self, stack: ExitStack) -> None:
        """Hold the folder until `stack` ends. Raises UserError that names who holds it."""
        killed = self._lock.exists()  # whoever ends removes it
        release = _locked(self._lock)
        if release is None:
            raise UserError(
                f"{self.path} is in use by another relevit command ({_holder(self._lock)}): wait until it ends, or choose "
                "another folder."
            )
        stack.callback(release)
        status = os.stat(self._lock)
        self._check = lambda: _check_there(self.path, status)
        stack.enter_context(owned(self.path, self.check))
        holder = {"command": _command(), "process": os.getpid(), "host": socket.gethostname()}
        self._lock.write_text(json.dumps(holder), encoding="utf-8")
        if killed:
            remove_all_leftovers(self.path)

    def _concerns(self, error: OSError) -> bool:
        """Whether an error of the operating system is about this folder; one that names no file is taken to be."""
        if not isinstance(error.filename, str | bytes):
            return True
        return Path(os.path.realpath(os.fsdecode(error.filename))).is_relative_to(os.path.realpath(self.path))

    def tidy(self) -> None:
        """Of a finished folder: remove what a process left that was killed when all was done."""
        hidden = self.path / HIDDEN
        if self._held is None and is_first() and hidden.is_dir():
            with suppress(OSError):
                release = _locked(self._lock) if self._lock.exists() or not any(hidden.iterdir()) else None
                if release is not None:
                    remove_all_leftovers(self.path)
                    release()


def _locked(file: Path) -> Callable[[], None] | None:
    """Lock a file and return what unlocks and removes it; None where another process holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(file, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        file.touch()

    def release() -> None:
        with suppress(OSError):
            file.unlink()
        lock.release()
        with suppress(OSError):  # something else is in it
            file.parent.rmdir()

    return release


def _holder(file: Path) -> str:
    """Who holds a lock, as it says of itself."""
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        return f"{holder['command']}, process {holder['process']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # just begun
        return "which has just begun"


def _command() -> str:
    """The command line's first two words, such as "relevit masks"; of another program, its name."""
    program = Path(sys.argv[0] if sys.argv else "python")
    if program.name == "__main__.py":  # python -m relevit
        program = program.parent
    return " ".join([program.name, *sys.argv[1:2]])


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "about"}


def join(path: Path) -> None:
    """Let this process write to the folder that another one holds for it, until the process ends."""
    owned(path, lambda: _check_there(path)).__enter__()


def _check_there(path: Path, status: os.stat_result | None = None) -> None:
    """Raise UserError if the lock of a folder is gone, or is not the file of this status."""
    with suppress(OSError):
        now = os.stat(path / HIDDEN / "lock")
        if status is None or os.path.samestat(status, now):
            return
    raise UserError(
        f"{path} was removed or replaced while this command wrote to it, its results are lost: start the same command again."
    )


def check_new_file(path: str | os.PathLike[str]) -> None:
    """Raise UserError for the place of a file where something is already: nothing is overwritten."""
    place = Path(path)
    if place.is_symlink() or place.exists():
        raise UserError(f"{place} is there already: give another --out, or remove it.")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations, "about" aside; a line for each key."""
    return [
        f"{key}: {old.get(key)!r} in the folder, {new.get(key)!r} now"
        for key in {**old, **new}
        if key != "about" and old.get(key) != new.get(key)
    ]
