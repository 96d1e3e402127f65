"""The types of the public functions' parameters: what Python may pass, and beside it how the command line reads and shows them.

A type checker sees what a function takes (a name, a path or an object); the command line sees `Shown`: the type that
its text is read as, the placeholder in the help, and the option's name where it is another one. `AtLeast` and
`Between` bound numbers, for both. Nothing here imports torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce, wraps
from inspect import Parameter, signature, unwrap
from operator import or_
from shlex import join
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from relevit.errors import ArgumentError, Function, tells_new_names
from relevit.terminal import bars_wanted

if TYPE_CHECKING:
    import pathlib

    from torch import nn

    Model = str | pathlib.Path | nn.Module | tuple[nn.Module, Callable[..., Any]]
    Models = Model | Sequence[Model] | Mapping[str, Model]
    Benchmarks = Any  # names, paths and data sets; several as a list, or as a dictionary by name
    DataSet = Any  # a name, a path or a data set
    DataSets = Any  # one or several of these, or a dictionary of them by name
    Samples = Any  # a folder, or a data set of (image, mask, label)
    Path = str | pathlib.Path
    Folder = Path
    File = Path
    Run = Path
    Output = Path
    Folders = Path | Sequence[Path]
    Files = Path | Sequence[Path]
    Names = Sequence[str]
    ClassMap = Path | Mapping[str, int]
    ClassSet = Path | Sequence[str]
    ClassName = str | int
    Validation = Any  # a folder, a data set, or a fraction or number of classes


@dataclass(frozen=True)
class Shown:
    """How the command line reads a parameter (`kind`), its placeholder in the help, and the option's name where it differs."""

    kind: Any = None
    metavar: str | tuple[str, ...] = ""
    option: str = ""


# What arguments are that many functions have: `public` adds them to a docstring that does not tell of them itself.
COMMON = {
    "model": "a timm model's name, a run or checkpoint folder, a file of weights, or builtin (the demo's).",
    "checkpoint": "a file or folder of weights for the timm model MODEL, in place of its pretrained ones.",
    "num_classes": "number of classes, where it differs from the model's own.",
    "model_args": "further arguments for timm.create_model, such as '{img_size: 384}'.",
    "class_map": "a JSON or CSV file from folder name to class index, where folders are named neither by wnid nor by class index.",
    "protocol": "preprocessing, the model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).",
    "batch_size": "images in one forward pass.",
    "workers": "processes that read images; 0 reads in this one.",
    "device": "where to run, such as cuda; by default the GPU if there is one.",
    "precision": "of the forward pass; bf16 and fp16 by autocast.",
    "seed": "of all draws.",
    "progress": "shows a progress bar.",
}

PythonOnly = Shown(option="none")  # no option of the command line


@dataclass(frozen=True)
class Bounds:
    """The range of a number, both ends included."""

    low: float
    high: float = math.inf

    def check(self, name: str, value: Any) -> None:
        """Raises ArgumentError for a number that is outside; what is no number is not looked at."""
        if isinstance(value, int | float) and not self.low <= value <= self.high:
            wanted = f"at least {self.low:g}" if self.high == math.inf else f"from {self.low:g} to {self.high:g}"
            raise ArgumentError(name, f"must be {wanted}, not {value}")


if not TYPE_CHECKING:
    Model = Annotated[Any, Shown(str, "MODEL")]
    Models = Annotated[Any, Shown(list[str], "MODEL")]
    Benchmarks = Annotated[Any, Shown(list[str], "DIR", option="data")]
    Samples = Annotated[Any, Shown(str, "DIR", option="images")]
    Folder = DataSet = Annotated[Any, Shown(str, "DIR")]
    File = ClassMap = ClassSet = Annotated[Any, Shown(str, "FILE")]
    ClassName = Annotated[Any, Shown(str, "CLASS")]
    Run = Annotated[Any, Shown(str, "RUN")]
    Output = Annotated[Any, Shown(str, "PATH")]
    Folders = DataSets = Annotated[Any, Shown(list[str], "DIR")]
    Files = Annotated[Any, Shown(list[str], "FILE")]
    Names = Annotated[Any, Shown(list[str], "NAME")]
    Validation = Annotated[Any, Shown(str, "DIR")]

Name = Annotated[str, Shown(metavar="NAME")]
Device = Annotated[str | None, Shown(metavar="NAME")]
Options = Annotated[dict[str, Any] | None, Shown(metavar="{...}")]
Count = Annotated[int, Bounds(1)]
Index = Annotated[int, Bounds(0)]
Share = Annotated[float, Bounds(0, 1)]
Positive = Annotated[float, Bounds(0)]
Protocol = Literal["standard", "paper"]
Precision = Literal["float32", "bf16", "fp16"]


@dataclass(frozen=True)
class Argument:
    """One parameter of a public function, as the command line has it."""

    name: str
    kind: Any  # a type for the parser
    default: Any
    positional: bool
    metavar: str | tuple[str, ...]
    option: str
    bounds: Bounds | None

    @property
    def required(self) -> bool:
        return self.default is Parameter.empty

    @property
    def several(self) -> bool:
        """Whether it takes one or more values."""
        return get_origin(self.kind) is list

    @property
    def usage(self) -> str:
        """As the usage line has it."""
        words = self.spelled if self.positional else f"{self.spelled} {self.metavar}"
        return f"{words}..." if self.several else words

    @property
    def spelled(self) -> str:
        """How a user types it."""
        return str(self.metavar) if self.positional else "--" + self.option.replace("_", "-")


@cache
def arguments_of(function: Callable[..., Any]) -> dict[str, Argument]:
    """The parameters of a public function by name. Those before the `*` are positional, but for the ones that have an
    option's name."""
    names = unwrap(function).__globals__
    found = {}
    for name, parameter in signature(function).parameters.items():
        hint = eval(parameter.annotation, names)  # the result's type may be torch's, so not typing.get_type_hints
        notes = _notes(hint)
        if PythonOnly in notes:
            continue
        option = next((note.option for note in notes if isinstance(note, Shown) and note.option), "")
        positional = parameter.kind is not Parameter.KEYWORD_ONLY and not option
        metavars = [note.metavar for note in notes if isinstance(note, Shown) and note.metavar]
        metavar = next(iter(metavars), name.upper() if positional else "X")
        bounds = next((note for note in notes if isinstance(note, Bounds)), None)
        found[name] = Argument(name, _plain(hint), parameter.default, positional, metavar, option or name, bounds)
    return found


def public(function: Function) -> Function:
    """A decorator of the public functions: numbers outside their bounds, words that are no choice and arguments' old names
    raise ArgumentError before anything else happens. `progress=False` hides the bars of all that runs inside. The docstring gets
    the arguments of COMMON that it lacks."""
    known = signature(function)

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        expected = arguments_of(function)
        given = known.bind(*arguments, **options).arguments
        for name, argument in expected.items():
            _check(argument, given.get(name))
        bars = bars_wanted.set(given.get("progress", True))
        try:
            return function(*arguments, **options)
        finally:
            bars_wanted.reset(bars)

    call.__doc__ = _completed(function.__doc__ or "", known.parameters)
    return tells_new_names(call)  # type: ignore[return-value]


def _completed(text: str, parameters: Iterable[str]) -> str:
    """A docstring with all arguments of COMMON."""
    about, args, rest = text.partition("\n    Args:\n")
    told, end, after = rest.partition("\n\n")
    lines = [
        f"        {name}: {COMMON[name]}" for name in parameters if name in COMMON and f"        {name}: " not in told
    ]
    return about + args + "\n".join([told.rstrip(), *lines]) + (end + after or "\n    ") if args else text


def command_line(function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """The command that makes the same call; options that have their defaults are left out."""
    words: list[Any] = ["relevit", function.__name__]
    for name, argument in arguments_of(function).items():
        value = given[name]
        if argument.positional:
            words += listed(value)
        elif value != argument.default and name != "progress":
            flag = argument.spelled if value is not False else f"--no-{argument.spelled[2:]}"
            words += [flag] if isinstance(value, bool) else [flag, *listed(value)]
    plain = str | int | float | os.PathLike | Mapping
    return join(str(word if isinstance(word, plain) or word is None else told(word)) for word in words)


def listed(value: Any) -> list[Any]:
    """Several values as a list, and one as a list of it."""
    return list(value) if isinstance(value, list | tuple) else [value]


def told(given: Any) -> Any:
    """What a result says of data that were given: names and paths as they are, the names of a dictionary, a set's own name."""
    if isinstance(given, str | os.PathLike):
        return str(given)
    if isinstance(given, Mapping) or (
        isinstance(given, list | tuple) and all(isinstance(each, str | os.PathLike) for each in given)
    ):
        return [str(each) for each in given]
    return str(getattr(given, "name", "") or type(given).__name__)


def _check(argument: Argument, value: Any) -> None:
    kinds = [argument.kind, *(inner for inner in get_args(argument.kind) if get_args(argument.kind)[1:] == (NoneType,))]
    choices = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())
    if choices and value is not None and value not in choices:
        raise ArgumentError(argument.name, f"must be one of {', '.join(map(str, choices))}, not {value}")
    if argument.bounds is not None:
        for number in value if isinstance(value, list | tuple) else [value]:
            argument.bounds.check(argument.name, number)


def _notes(hint: Any) -> list[Any]:
    """The notes of a type and of the types that it consists of, outer ones first."""
    if get_origin(hint) is Annotated:
        return [*reversed(hint.__metadata__), *_notes(hint.__origin__)]
    return [note for inner in get_args(hint) for note in _notes(inner)] if get_origin(hint) is not Literal else []


def _plain(hint: Any) -> Any:
    """The type without its notes; with a `kind` among them, that."""
    origin = get_origin(hint)
    if origin is Annotated:
        kind = next((note.kind for note in hint.__metadata__ if isinstance(note, Shown) and note.kind), None)
        return kind or _plain(hint.__origin__)
    if origin in (Union, UnionType):
        kinds = [_plain(inner) for inner in get_args(hint)]
        numbers = [kind for kind in kinds if get_origin(kind) is tuple]  # typed one after the other
        return numbers[0] if numbers else reduce(or_, kinds)
    if origin is Sequence:
        return list[_plain(get_args(hint)[0])]  # type: ignore[misc]
    return hint
