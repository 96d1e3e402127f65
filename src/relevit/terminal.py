"""What a user sees on the terminal: text and tables on standard output, remarks and progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from relevit.processes import is_first

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from relevit.errors import Fault

bars_wanted: ContextVar[bool] = ContextVar("bars_wanted", default=True)
telling: ContextVar[bool] = ContextVar("telling", default=False)  # True while a command runs


def show(*things: RenderableType) -> None:
    """Print text as it is (long lines are not broken), a `report.table.Table` and whatever else rich prints on standard output."""
    _print(_console(), things)


def tell(*things: RenderableType) -> None:
    """What a command says while it works; nothing where the public function is called from Python."""
    if telling.get():
        show(*things)


def remark(*lines: str) -> None:
    """Print lines on standard error."""
    _print(_console(stderr=True), lines)


def tell_remarks(notes: Sequence[str], faults: Sequence[Fault], title: str) -> None:
    """Notes, and faults that did not stop the command by kind under a title, on standard error."""
    from relevit.errors import describe

    remark(*(f"note: {note}" for note in notes))
    if faults:
        remark(title, *describe(faults, shown=5).splitlines()[1:])


@contextmanager
def progress(name: str, total: int | None = None, done: int = 0) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error while the block runs; yields `advance(n, total=None, text="")`, to be
    told of n further items, of their total where it was not known before, and of what stands beside the bar.

    There is none without a terminal, in the processes beside the first, and under `--no-progress` (progress=False).
    """
    if not (bars_wanted.get() and sys.stderr.isatty() and is_first()):
        yield lambda count, total=None, text="": None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Items per second."""

        def render(self, task: Any) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.1f}/s")

    told = TextColumn("{task.fields[text]}", markup=False)
    columns = (TextColumn(name, markup=False), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), told)
    with Progress(*columns, console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, completed=done, text="")
        yield lambda count, total=total, text="": bar.update(task, advance=count, total=total, text=text)


def _console(stderr: bool = False) -> Console:
    """Without a terminal (a file, a pipe) tables keep their full width."""
    from rich.console import Console

    width = None if stderr or sys.stdout.isatty() else 200
    return Console(stderr=stderr, highlight=False, markup=False, width=width)


def _print(console: Console, things: Sequence[RenderableType]) -> None:
    for thing in things:
        console.print(thing, soft_wrap=isinstance(thing, str))
