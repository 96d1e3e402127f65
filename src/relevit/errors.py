"""Errors that a user can mend: the command line prints them as one line and exits with code 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from typing import Any, Literal, NamedTuple, TypeVar

Kind = Literal[
    "unreadable image",
    "missing mask",
    "unreadable mask",
    "empty mask",
    "mask of another size",
    "unknown class",
    "no images",
    "one mask for several images",
    "several masks for one image",
    "missing image",
    "no masks",
    "several objects in one mask",
    "wrong class id",
    "bad annotation",
    "bad manifest",
    "bad sample",
]


Function = TypeVar("Function", bound=Callable[..., Any])


class UserError(ValueError):
    """Something in the arguments or the files given is wrong; the message names it and says what to do."""


class ArgumentError(UserError):
    """One argument is wrong: its name, and what is wrong with it. The command line spells the name as an option."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


# Arguments that have another name since, in every public function that has the new one.
RENAMED = {
    "method": "explainer",
    "mode": "protocol (standard or paper)",
    "normalization": "protocol (standard or paper)",
    "mixed_precision": "precision (float32, bf16 or fp16)",
    "tensorboard": "track (names of trackers, or none)",
}


def new_name(function: Callable[..., Any], name: str) -> str | None:
    """What an argument's old name is called now, None where the function never had it."""
    new = RENAMED.get(name)
    if new is None:
        return None
    parameters = signature(function).parameters
    return new if name not in parameters and new.partition(" ")[0] in parameters else None


def tells_new_names(function: Function) -> Function:
    """A decorator: an argument that has another name now (`RENAMED`) fails with a sentence that gives it.

    Raises:
        ArgumentError: when the function is called with an old name.
    """

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        for name in options:
            new = new_name(function, name)
            if new is not None:
                raise ArgumentError(name, f"is now called {new}")
        return function(*arguments, **options)

    return call  # type: ignore[return-value]


class FileError(UserError):
    """A file cannot be used. The message is "PATH REASON." unless given.

    Attributes:
        path: the file.
        reason: what is wrong with it and what to do, without its name.
    """

    def __init__(self, path: object, reason: str, message: str | None = None) -> None:
        super().__init__(message or f"{path} {reason}.")
        self.path, self.reason = str(path), reason

    def __reduce__(self) -> tuple[type[FileError], tuple[str, str, str]]:
        return FileError, (self.path, self.reason, str(self))


def reason_of(error: Exception) -> str:
    """What an error says, without the file's name where that stands before it, and without a full stop."""
    return (error.reason if isinstance(error, FileError) else str(error)).rstrip(".")


REMEDIES: dict[str, str] = {
    "unreadable image": "replace or remove the files",
    "missing mask": "add a PNG of the same name to the folder of masks, or remove the image",
    "unreadable mask": "write masks as grey PNG, 0 for background and 255 for object",
    "empty mask": "mark the object (255), or remove the image",
    "mask of another size": "give masks the size of their images",
    "unknown class": "name class folders by wnid or class index, or give a class map",
    "no images": "put images into the folder, or remove it",
    "one mask for several images": "give each image of a folder a name of its own",
    "several masks for one image": "keep one of the masks",
    "missing image": "add the image, or remove what refers to it",
    "no masks": "put masks into the folder, or remove it",
    "several objects in one mask": "keep the id of the folder's class, set the other object to 0 or to 1000 (ignore)",
    "wrong class id": "move the file to the folder of its class, or mend its ids",
    "bad annotation": "mend or remove the annotation",
    "bad manifest": "mend its lines: each image once, for training or validation, of the label of its class or -1",
    "bad sample": "mend or leave out the samples",
}


class Fault(NamedTuple):
    """One thing wrong with the data: its kind, the file or folder, and the details (may be empty)."""

    kind: Kind
    file: str
    detail: str = ""


class FaultsError(UserError):
    """The data has faults; the message groups them by kind, `.faults` is the full list."""

    def __init__(self, faults: Sequence[Fault], shown: int = 20):
        super().__init__(describe(faults, shown))
        self.faults = list(faults)


def describe(faults: Sequence[Fault], shown: int = 20) -> str:
    """Faults grouped by kind: a heading with the count and the remedy, then at most `shown` files."""
    count = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}"
    lines = [f"The samples have {count}; mend them, or leave the bad samples out with --skip-bad (skip_bad=True)."]
    for kind in dict.fromkeys(fault.kind for fault in faults):
        group = [fault for fault in faults if fault.kind == kind]
        lines.append(f"{kind} ({len(group)}): {REMEDIES[kind]}")
        lines += [f"  {fault.file}" + (f" ({fault.detail})" if fault.detail else "") for fault in group[:shown]]
        if len(group) > shown:
            lines.append(f"  ... and {len(group) - shown} more")
    return "\n".join(lines)
