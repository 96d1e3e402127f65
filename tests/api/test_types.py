"""What a signature says of the command line and of the values that may be passed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

import relevit
from relevit.api import COMMANDS, function_name
from relevit.api.types import (
    Count,
    Folder,
    Index,
    Models,
    Options,
    PythonOnly,
    Samples,
    Share,
    Shown,
    arguments_of,
    command_line,
    public,
)
from relevit.cli import public_function
from relevit.errors import ArgumentError, UserError
from relevit.models.loading import labelled, load
from relevit.terminal import bars_wanted


@public
def example(
    models: "Models",
    samples: "Samples",
    *,
    out: "Folder | None" = None,
    count: "Count" = 3,
    shares: "Sequence[Share]" = (0.5,),
    size: "Annotated[tuple[int, int] | None, Shown(metavar=('H', 'W'))]" = None,
    kind: "Literal['a', 'b'] | None" = None,
    options: "Options" = None,
    flag: "bool" = True,
    transform: "Annotated[Any, PythonOnly]" = None,
    seed: "Index" = 0,
    progress: "bool" = True,
) -> bool:
    """An example."""
    return bars_wanted.get()


def test_arguments_are_read_off_the_signature() -> None:
    found = arguments_of(example)
    assert list(found) == "models samples out count shares size kind options flag seed progress".split()
    assert [name for name, argument in found.items() if argument.positional] == ["models"]
    assert (found["models"].usage, found["samples"].usage) == ("MODEL...", "--images DIR")
    assert (found["out"].metavar, found["size"].metavar, found["options"].metavar) == ("DIR", ("H", "W"), "{...}")
    assert [found[name].kind for name in ("shares", "size", "count")] == [list[float], tuple[int, int], int]
    assert found["samples"].required and not found["count"].required


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be at least 1, not 0"),
        ({"shares": (0.1, 1.5)}, "shares must be from 0 to 1, not 1.5"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"kind": "c"}, "kind must be one of a, b, not c"),
    ],
)
def test_wrong_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{message}$"):
        example("m", "i", **options)


def test_progress_is_switched_for_all_inside() -> None:
    assert example("m", "i", kind="a", count=1) and not example("m", "i", progress=False) and bars_wanted.get()


def test_the_command_that_makes_the_same_call() -> None:
    given = {"models": ["a b", "c"], "samples": "dir", "out": None, "count": 3, "shares": [0.1, 0.2], "size": None}
    given |= {"kind": "a", "options": None, "flag": False, "seed": 0, "progress": False}
    assert command_line(example, given) == "relevit example 'a b' c --images dir --shares 0.1 0.2 --kind a --no-flag"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_public_function_is_the_command(command: str) -> None:
    function = public_function(command)
    assert function is getattr(relevit, function_name(command))
    documented = (function.__doc__ or "").split("Args:")[1]
    for name in arguments_of(function):
        assert f"\n        {name}: " in documented


def test_models_by_name_object_and_label(tmp_path: Path) -> None:
    net, view = relevit.load("builtin")
    assert labelled("a") == {"a": "a"} and labelled(["x=a", "b"]) == {"x": "a", "b": "b"}
    assert labelled(net) == {"model": net} and labelled({"x": (net, view)}) == {"x": (net, view)}
    with pytest.raises(UserError, match="need labels: give a dictionary"):
        labelled([net, net])
    assert load(net)[0] is net and load((net, view))[1] is view
    with pytest.raises(UserError, match="num_classes is for a model given by its name"):
        load(net, num_classes=3)
