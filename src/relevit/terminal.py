"""What the subcommands share: the consoles they print on, the device and cores they run on, and the arguments of a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from relevit.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from relevit.errors import Fault


def pick_device(name: str | None) -> str:
    """The device that was asked for, by default the GPU if there is one. Raises UserError for one that cannot be used here."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # no driver, torch without CUDA, no such device
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--device {name} cannot be used here ({reason}): give cpu, or leave it out") from error
    return name


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def model_arguments(num_classes: int | None, model_args: dict[str, Any] | None) -> dict[str, Any]:
    """`--model-args` for `relevit.load`, with `--num-classes` among them where it is given; it wins."""
    return {**(model_args or {}), **({} if num_classes is None else {"num_classes": num_classes})}


def stdout() -> Console:
    """A console on standard output. Without a terminal (a file, a pipe) the tables keep their full width."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def stderr() -> Console:
    """A console on standard error."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def counting(text: str, enabled: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error where that is a terminal; yields what is to be called with (done, total)."""
    if not (enabled and sys.stderr.isatty()):
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def tell_remarks(notes: Sequence[str], faults: Sequence[Fault], title: str) -> None:
    """Notes, and faults that did not stop the command by kind under a title, on standard error."""
    from relevit.errors import describe

    for note in notes:
        stderr().print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)
    if faults:
        stderr().print(title, highlight=False)
        lines = describe(faults, shown=5).splitlines()[1:]
        stderr().print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)
