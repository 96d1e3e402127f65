"""The limits of the house: sizes of files, functions, signatures and names, and the files in the package's hall."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "relevit"
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_PARAMETERS, MOST_FILES_IN_THE_HALL, LONGEST_TEST_NAME = 400, 60, 12, 12, 60

# What is still beyond: these lists only shrink.
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
MANY_PARAMETERS: set[str] = set()

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(folder: Path) -> Iterator[tuple[str, Function]]:
    """Every function below a folder, methods and inner ones too, as FILE:NAME."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield f"{file.relative_to(ROOT).as_posix()}:{node.name}", node


def is_public(name: str) -> bool:
    """Whether it is in api/: a public function has all options of its command in its signature, and their help below it."""
    return name.startswith("src/relevit/api/")


def lines(function: Function) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def parameters(function: Function) -> int:
    """How many it has; of a kernel of Triton none count, since there pointers come with the strides of what they point to."""
    if any(ast.unparse(decorator) == "triton.jit" for decorator in function.decorator_list):
        return 0
    given = function.args
    own = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in own if name not in ("self", "cls")])


def test_no_file_is_long() -> None:
    files = [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    long = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert {name: count for name, count in long.items() if count > MOST_LINES and name not in LONG_FILES} == {}


def test_no_function_is_long() -> None:
    long = {name: lines(function) for name, function in functions(SOURCE) if not is_public(name)}
    over = {name: count for name, count in long.items() if count > MOST_LINES_OF_A_FUNCTION}
    assert {name: count for name, count in over.items() if name not in LONG_FUNCTIONS} == {}


def test_no_function_has_many_parameters() -> None:
    many = {name: parameters(function) for name, function in functions(SOURCE) if not is_public(name)}
    over = {name: count for name, count in many.items() if count > MOST_PARAMETERS}
    assert {name: count for name, count in over.items() if name not in MANY_PARAMETERS} == {}


def test_few_files_stand_in_the_hall() -> None:
    assert len(list(SOURCE.glob("*.py"))) <= MOST_FILES_IN_THE_HALL


def test_names_of_tests_are_short() -> None:
    names = {name for name, _ in functions(ROOT / "tests") if name.partition(":")[2].startswith("test_")}
    long = {name for name in names if len(name.partition(":")[2]) > LONGEST_TEST_NAME}
    assert long == set()


@pytest.mark.parametrize(
    ("source", "count"), [("def f(self, a, /, b, *rest, c=1, **more): pass", 3), ("def f(): pass", 0)]
)
def test_parameters_are_counted(source: str, count: int) -> None:
    function = ast.parse(source).body[0]
    assert isinstance(function, Function) and parameters(function) == count


def test_contributing_says_where_things_go() -> None:
    """Every file, table and entry point that the table names is there."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (an? .*?) \| (.*?) \| `(.*?\.py)`: `([A-Z]+)` \| (.*?) ?\|$", text, re.M)
    assert len(rows) >= 7
    for what, where, file, name, group in rows:
        assert (SOURCE / file).is_file(), what
        table = getattr(
            import_module("relevit." + file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")), name
        )
        assert len(table) > 1, what
        for place in re.findall(r"`([\w/]+/)`", where):
            assert (SOURCE / place).is_dir(), (what, place)
        if group:
            assert f"`relevit.{table.group}`" == group, what
