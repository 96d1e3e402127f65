"""Where the numbers of a run go: steps.csv and epochs.csv, the terminal, and accelerate's trackers (TensorBoard, wandb, ...).

A tracker belongs to a run's folder: a call that goes on with the run goes on with what the tracker has of it, and gives it no
row twice. TensorBoard is told which rows to forget; others get those alone that no earlier call has written to the CSV files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, TextIO

from relevit.files import atomic_write
from relevit.terminal import progress, remark
from relevit.training.trackers import start_tracker

_SHORT = {"gradient_norm": "|g|", "foreground_share": "on object"}
_HIDDEN = {"step", "epoch", "seconds", "lr", "collapsed", "samples", "classification_loss"}


def _text(values: Mapping[str, object]) -> str:
    shown = ((_SHORT.get(key, key), value) for key, value in values.items() if key not in _HIDDEN)
    return "  ".join(f"{key} {value:.3g}" for key, value in shown if isinstance(value, float))


class CsvLog:
    """Rows appended to a CSV file and flushed at once. Columns are those of the first row."""

    def __init__(self, path: Path, key: str, keep_until: int) -> None:
        """Keeps the whole rows of an existing file whose integer column `key` is at most `keep_until`, and no other.

        `written` is the highest key that the file had before, -1 where it had none.
        """
        self.path, self.columns, self.written = path, None, -1
        self._file: TextIO | None = None
        if path.exists():
            rows = list(csv.reader(io.StringIO(path.read_text())))
            header = rows[0] if rows else []
            position = header.index(key) if key in header else None
            kept = [row for row in rows[1:] if position is not None and len(row) == len(header)]
            kept = [row for row in kept if row[position or 0].isdigit()]
            self.written = max((int(row[position or 0]) for row in kept), default=-1)
            kept = [row for row in kept if int(row[position or 0]) <= keep_until]
            if not kept:
                path.unlink()
            else:
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows([header, *kept])
                atomic_write(path, text.getvalue())
                self.columns = header

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        if self._file is None:
            new = self.columns is None
            self.columns = self.columns or list(row)
            self._file = open(self.path, "a", newline="")  # closed by close()
            self._writer = csv.DictWriter(self._file, self.columns, extrasaction="ignore", lineterminator="\n")
            if new:
                self._writer.writeheader()
        self._writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        self._file.flush()

    def close(self) -> None:
        """Close the file, if a row was written."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Logs:
    """A context that takes the numbers of a run's steps and epochs. Without a folder, the terminal alone gets them."""

    def __init__(
        self,
        folder: Path | None,
        *,
        steps: int,
        step: int,
        epoch: int,
        shown: bool,
        track: Sequence[str],
        about: Mapping[str, Any],
    ) -> None:
        """Rows for steps after `step` and epochs after `epoch`, which an interrupted call left, are cut off.

        steps: how many there are in all; shown: on the terminal; track: names of trackers; about: the settings, which they show.
        """
        self.shown, self._stack = shown, ExitStack()
        self._bar = progress("training", steps, done=step) if shown else nullcontext(lambda *_, **__: None)
        self._steps = self._epochs = None
        self._trackers: list[Any] = []
        if folder is not None:
            self._steps, self._epochs = (
                CsvLog(folder / f"{key}s.csv", key, until) for key, until in (("step", step), ("epoch", epoch))
            )
            self._stack.callback(self._steps.close)
            self._stack.callback(self._epochs.close)
            for name in track:
                self._trackers.append(start_tracker(name, folder, step, about))
                self._stack.callback(self._trackers[-1].finish)

    def __enter__(self) -> Logs:
        self._advance = self._stack.enter_context(self._bar)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, message: str) -> None:
        """Tell the user something."""
        if self.shown:
            remark(message)

    def say_epoch(self, number: int, epochs: int, values: Mapping[str, object]) -> None:
        """Tell the user of an epoch that is over."""
        self.say(f"epoch {number}/{epochs}  {_text(values)}")

    def step(self, step: int, epoch: int, rate: float, values: Mapping[str, float], seconds: float) -> None:
        """The numbers of an optimiser step of the epoch, counted from 1."""
        self._advance(1, text=f"epoch {epoch}  {_text(values)}")
        if self._steps is not None:
            self._steps.write({"step": step, "epoch": epoch, "lr": rate, **values, "seconds": seconds})
            self._track("train", {**values, "lr": rate}, step, new=step > self._steps.written)

    def before(self, validation: Mapping[str, float], only_validation: frozenset[str]) -> None:
        """What the original model does, as epoch 0; `only_validation`: what no training batch is measured by."""
        nothing_yet = {name: "" for name in validation if name not in only_validation}
        if self._epochs is not None:
            self._epochs.write({"epoch": 0, "step": 0, "lr": "", **epoch_columns(nothing_yet, validation)})

    def epoch(
        self, row: Mapping[str, Any], epochs: int, training: Mapping[str, float], validation: Mapping[str, float]
    ) -> None:
        """The numbers of an epoch that is over: its row of epochs.csv, and what was measured."""
        self.say_epoch(row["epoch"], epochs, validation or training)
        if self._epochs is not None:
            self._epochs.write(row)
            self._track("validation", validation, row["step"], new=row["epoch"] > self._epochs.written)

    def _track(self, kind: str, values: Mapping[str, float], step: int, new: bool) -> None:
        for tracker in self._trackers:
            if values and (new or tracker.name == "tensorboard"):
                tracker.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)


def epoch_columns(training: Mapping[str, Any], validation: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured in an epoch under the names of the columns of epochs.csv."""
    named = [("train", training), ("validation", validation)]
    return {f"{kind}_{name}": value for kind, values in named for name, value in values.items()}
