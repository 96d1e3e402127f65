"""The options that every command with a MODEL has beside its own: what is to be said of a file of weights, and in which words the
classes of a model of images and texts are described.

The command line writes them into the model's name (`relevit.models.weights.options`), so that no public function needs to know them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relevit.api.types import Argument, arguments_of
from relevit.errors import ArgumentError
from relevit.models.weights.options import ENDINGS, HELP, WORDS, FileOptions, with_options

_LABEL = re.compile(r"^[^=/@\\]+=")
_WHERE = {
    False: "is said of a file of weights: give the model as ARCHITECTURE@FILE",
    True: "is said of a model of images and texts (open_clip:ARCHITECTURE/PRETRAINED, hf:NAME, or a folder of one), and class names "
    "of a file of weights (ARCHITECTURE@FILE) too: other models have classes of their own",
}
_KINDS: dict[str, tuple[Any, str | tuple[str, ...]]] = {
    "weights": (str, "NAME"),
    "class_names": (str, "FILE"),
    "templates": (str, "FILE"),
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
    kind = (
        "named open_clip: or hf:, or the folder of one" if argument.name == "templates" else "that is ARCHITECTURE@FILE"
    )
    return f"of a MODEL {kind}: {HELP[argument.name]}"


def told_of_files(function: Callable[..., Any], values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a function's parameters, with what is said of files of weights, and of models of images and texts, in their names.

    Raises ArgumentError where something is said of no model.
    """
    options = FileOptions.of(given)
    own, said = arguments_of(function), set[str]()
    changed = {
        name: _told(value, options, name == "checkpoint", said)
        for name, value in values.items()
        if own[name].metavar == "MODEL" or name == "checkpoint"
    }
    for name in options.told():
        if name not in said:
            raise ArgumentError(name, _WHERE[name in WORDS])
    return {**values, **changed}


def _told(value: Any, options: FileOptions, is_file: bool, said: set[str]) -> Any:
    """The names of models with what is said of them; `said` gets the names of these options."""
    if isinstance(value, list):
        return [_told(each, options, is_file, said) for each in value]
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    plain = _LABEL.sub("", text.partition("?")[0])
    if is_file or "@" in plain or plain.endswith(ENDINGS):
        names = set(_KINDS) - {"templates"}
    elif plain.startswith(("open_clip:", "hf:")) or Path(plain).is_dir():
        names = set(WORDS)
    else:
        return value
    told = {name: each for name, each in options.told().items() if name in names}
    said.update(told)
    return with_options(text, FileOptions(**told)) if told else value
