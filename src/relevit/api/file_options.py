"""The options that every command with a MODEL has beside its own: what is to be said of a file of weights.

The command line writes them into the model's name (`relevit.models.weights.options`), so that no public function needs to know them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relevit.api.types import Argument, arguments_of
from relevit.errors import ArgumentError
from relevit.models.weights.options import HELP, FileOptions, with_options

_ENDINGS = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin", ".ckpt")
_KINDS: dict[str, tuple[Any, str | tuple[str, ...]]] = {
    "weights": (str, "NAME"),
    "class_names": (str, "FILE"),
    "mean": (tuple[float, float, float], ("R", "G", "B")),
    "std": (tuple[float, float, float], ("R", "G", "B")),
    "image_size": (int, "PIXELS"),
    "resize": (int, "PIXELS"),
    "interpolation": (str, "FILTER"),
}


def file_arguments(function: Callable[..., Any]) -> dict[str, Argument]:
    """The options by name; none for a command without a MODEL, and none that the command has itself."""
    own = arguments_of(function)
    if not any(argument.metavar == "MODEL" for argument in own.values()):
        return {}
    return {
        name: Argument(name, kind, None, positional=False, metavar=metavar, option=name, bounds=None)
        for name, (kind, metavar) in _KINDS.items()
        if name not in own
    }


def help_of(argument: Argument) -> str:
    """What the help says of an option."""
    return f"of a MODEL that is ARCHITECTURE@FILE: {HELP[argument.name]}"


def told_of_files(function: Callable[..., Any], values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a function's parameters, with what is said of files of weights in the names of these files.

    Raises ArgumentError where something is said, and no model is a file of weights.
    """
    options = FileOptions.of(given)
    if options == FileOptions():
        return dict(values)
    own = arguments_of(function)
    changed = {
        name: _told(value, options, name == "checkpoint")
        for name, value in values.items()
        if own[name].metavar == "MODEL" or name == "checkpoint"
    }
    if all(changed[name] == values[name] for name in changed):
        first = next(name for name, value in given.items() if value is not None)
        raise ArgumentError(first, "is said of a file of weights: give the model as ARCHITECTURE@FILE")
    return {**values, **changed}


def _told(value: Any, options: FileOptions, is_file: bool) -> Any:
    if isinstance(value, list):
        return [_told(each, options, is_file) for each in value]
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    plain = text.partition("?")[0]
    return with_options(text, options) if is_file or "@" in plain or plain.endswith(_ENDINGS) else value
