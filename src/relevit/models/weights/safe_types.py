"""Reading PyTorch's pickles without running anything: the types that training loops put beside weights, and no others.

`torch.load(weights_only=True)` builds tensors and plain values only. `SAFE` adds the types in which training loops keep
their options; none of them can run code when it is built. Whatever else a file asks for is refused, by name.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import pickle
import pickletools
import types
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy._core import multiarray

from relevit.errors import UserError


def _mapping(*_: Any) -> dict[Any, Any]:
    """What a defaultdict is read as."""
    return {}


def _list(items: Any = (), *_: Any) -> list[Any]:
    """What a deque is read as."""
    return list(items)


_PATHS = {
    "PosixPath": pathlib.PurePosixPath if os.name == "nt" else pathlib.PosixPath,
    "WindowsPath": pathlib.WindowsPath if os.name == "nt" else pathlib.PureWindowsPath,
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}
SAFE: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    *((kind, f"builtins.{kind.__name__}") for kind in (bool, int, float, str, bytes, list, tuple, dict, frozenset)),
    (_mapping, "collections.defaultdict"),
    (_list, "collections.deque"),
    *(getattr(datetime, name) for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *((kind, f"{home}.{name}") for name, kind in _PATHS.items() for home in ("pathlib", "pathlib._local")),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bhilqBHILQefdgFDGSUV"),
    *(
        (getattr(multiarray, name), f"numpy.{home}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for home in ("core", "_core")
    ),
]
_LEGACY_PICKLES = 4  # of torch's format before zip files: a magic number, a version, the system, and then the content
_CONVERTED = "if you trust the file, write its weights alone by"


class Globals(NamedTuple):
    """What a pickle names: functions and types in the order of the file, and what stands before the first that is refused.

    whole: whether the content is itself an object and no dictionary. key: the dictionary's key before the first refused type.
    """

    refused: list[str]
    whole: bool
    key: str | None


def load_pickle(path: Path) -> Any:
    """The content of a file that `torch.save` wrote, on the CPU, its tensors mapped from the file where that can be.

    Raises UserError for a file that holds anything else than tensors, plain values and `SAFE` types, or that is damaged.
    """
    if _is_torchscript(path):
        line = f"torch.save(torch.jit.load({str(path)!r}, map_location='cpu').state_dict(), 'weights.pth')"
        raise UserError(f"{path} is a TorchScript archive, which is a program: {_CONVERTED} `{line}`.")
    try:
        with torch.serialization.safe_globals(SAFE), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of another pickle protocol: it is read, or refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as weights ({reason}): it may be cut short.") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _refusal(path: Path) -> UserError:
    """Why a pickle is refused: its types by name, and the one line that makes a file of weights of it."""
    try:
        found = _globals(path)
    except (ValueError, StopIteration, OSError, zipfile.BadZipFile):  # a damaged file
        found = Globals([], False, None)
    if not found.refused:
        return UserError(
            f"{path} cannot be read as plain weights: it is damaged, or was not written by torch.save with its own "
            f"pickle protocol. Save the state_dict alone with a program that you trust."
        )
    named = ", ".join(found.refused[:10]) + (", ..." if len(found.refused) > 10 else "")
    loaded = f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    if any(name.startswith("torch.nn.modules.") for name in found.refused):
        inner = loaded if found.whole or found.key is None else f"{loaded}[{found.key!r}]"
        line = f"torch.save({inner}.state_dict(), 'weights.pth')"
        return UserError(
            f"{path} holds a whole pickled module ({named}), which would run code: it is refused; {_CONVERTED} `{line}`."
        )
    line = f"c = {loaded}; torch.save(c['model'], 'weights.pth')"
    return UserError(
        f"{path} holds types that could run code, and is refused: {named}. Where it has weights under 'model' (see "
        f"c.keys()), {_CONVERTED} `{line}`."
    )


def _globals(path: Path) -> Globals:
    """The types that a file names and that are refused. The file is only looked at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as file:
                return _scan(file)  # type: ignore[arg-type]
    with path.open("rb") as file:
        for _ in range(_LEGACY_PICKLES - 1):
            _scan(file)
        return _scan(file)


def _scan(file: BufferedIOBase) -> Globals:
    """One pickle, up to its end."""
    allowed = set(torch._weights_only_unpickler._get_allowed_globals())  # torch tells it by no public name
    allowed |= {item[1] if isinstance(item, tuple) else f"{item.__module__}.{item.__qualname__}" for item in SAFE}
    refused: dict[str, None] = {}
    strings: list[str] = []
    key: str | None = None
    first = ""
    for operation, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
        if operation.name not in ("PROTO", "FRAME"):
            first = first or operation.name
        if operation.name in ("GLOBAL", "STACK_GLOBAL"):
            module, name = str(argument).split(" ", 1) if operation.name == "GLOBAL" else strings[-2:]
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            if f"{module}.{name}" not in allowed:
                before = strings[:-1] if strings[-1:] == ["module"] else strings  # the old format's mark of a class
                key = key if refused else next(iter(before[::-1]), None)
                refused.setdefault(f"{module}.{name}")
        elif isinstance(argument, str):
            strings.append(argument)
    return Globals(list(refused), first != "EMPTY_DICT", key)
