"""What the terminal shows of a training run: a bar with the latest numbers, and a line per epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_EVERY = 0.25  # seconds between two updates of the bar
_SHORT = {"gradient_norm": "|g|", "foreground_share": "on object"}
_HIDDEN = {"step", "epoch", "seconds", "lr", "collapsed", "samples", "classification_loss"}


def _text(values: Mapping[str, object]) -> str:
    shown = ((_SHORT.get(key, key), value) for key, value in values.items() if key not in _HIDDEN)
    return "  ".join(f"{key} {value:.3g}" for key, value in shown if isinstance(value, float))


class Display:
    """A context that shows progress on standard error; does nothing when not `enabled`."""

    def __init__(self, steps: int, done: int, enabled: bool) -> None:
        self.console = Console(stderr=True, soft_wrap=True, quiet=not enabled)
        self._live = enabled and self.console.is_terminal
        self._last, self._steps = 0.0, steps
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=self.console,
            refresh_per_second=4,
            disable=not self._live,
        )
        self._task = self._bar.add_task("training", total=steps, completed=done, values="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, number: int, epoch: int, values: Mapping[str, object]) -> None:
        """Show the numbers of an optimiser step."""
        if self._live and (time.monotonic() - self._last >= _EVERY or number == self._steps):
            self._last = time.monotonic()
            self._bar.update(self._task, completed=number, description=f"epoch {epoch}", values=_text(values))

    def epoch(self, number: int, epochs: int, values: Mapping[str, object]) -> None:
        """A line that stays, for an epoch that is over."""
        self.console.print(f"epoch {number}/{epochs}  {_text(values)}", highlight=False, markup=False)

    def say(self, message: str, style: str | None = None) -> None:
        self.console.print(message, style=style, highlight=False, markup=False)
