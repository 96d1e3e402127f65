"""The folder of a training run: its configuration, logs and state, so that the same call goes on where it was stopped.

    config.json   all arguments that matter for the result, fingerprints of samples and model, versions
    split.csv     which sample is for training and which for validation
    steps.csv     one row per optimiser step;  epochs.csv: one row per epoch, row 0 is before training
    trials/       with lr="auto": a run for each learning rate that was tried
    best/, last/  checkpoints;  state/: model, optimiser and position, replaced atomically;  result.json: marks the end

The state is the only thing that a resumed run goes on from. Rows that were logged after it was written are cut off, and
what a checkpoint holds beyond it is written again.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch

from relevit.data.manifest import Row, write_manifest
from relevit.files import atomic_write
from relevit.folders import OwnedFolder
from relevit.models.checkpoints import WEIGHTS, read_weights
from relevit.models.fingerprints import of_weights

KIND, CONFIG = "relevit finetune", "config.json"
TRIALS = "trials"  # the folder of the trials of learning rates, in that of the run (learning_rate.py)
_SHARE = 0.05  # of the time may go into writing states: they come less often where writing takes long


def initial_fingerprint(path: Path, weights: Mapping[str, torch.Tensor]) -> str:
    """The fingerprint of the weights that the run at `path` starts from.

    That of `weights`, unless these are what this very run left in a model trained in place: then the one it recorded.
    """
    now, config = of_weights(weights), path / CONFIG
    if not config.exists():
        return now
    state, checkpoints = path / "state" / "state.pt", [path / name / WEIGHTS for name in ("best", "last")]
    left = [torch.load(state, map_location="cpu", weights_only=True)["model"]] if state.exists() else []
    left += [read_weights(file) for file in checkpoints if file.exists()]
    if any(of_weights(other) == now for other in left):
        return json.loads(config.read_text()).get("initial_weights", now)
    return now


class CsvLog:
    """Rows appended to a CSV file and flushed at once. Columns are those of the first row."""

    def __init__(self, path: Path, key: str, keep_until: int) -> None:
        """Keeps the whole rows of an existing file whose integer column `key` is at most `keep_until`, and no other."""
        self.path, self.columns = path, None
        self._file: TextIO | None = None
        if path.exists():
            rows = list(csv.reader(io.StringIO(path.read_text())))
            header = rows[0] if rows else []
            position = header.index(key) if key in header else None
            kept = [row for row in rows[1:] if position is not None and len(row) == len(header)]
            kept = [row for row in kept if row[position or 0].isdigit() and int(row[position or 0]) <= keep_until]
            if not kept:
                path.unlink()
            else:
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows([header, *kept])
                atomic_write(path, text.getvalue())
                self.columns = header

    def write(self, row: Mapping[str, Any]) -> None:
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
        if self._file is not None:
            self._file.close()
            self._file = None


class RunFolder:
    """A run's folder, opened for `config`; `owned` is to be held while the run writes.

    Opening reads only. Raises UserError as `OwnedFolder`. result: what a finished run returned.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self.owned = OwnedFolder(path, KIND, config, record=CONFIG, may_hold=(TRIALS,))
        self._next_state, self._logs = 0.0, list[CsvLog]()
        self.result: dict[str, Any] | None = None
        if self.owned.earlier is not None and (path / "result.json").exists():
            self.result = json.loads((path / "result.json").read_text())

    def write_split(self, split: Sequence[Row]) -> None:
        """Write which sample is for training and which for validation, if that is not written yet."""
        if not (self.path / "split.csv").exists():
            write_manifest(self.path / "split.csv", split)

    def read_state(self) -> dict[str, Any] | None:
        """The latest state, tensors on the CPU; None if none was written yet."""
        file = self.path / "state" / "state.pt"
        return torch.load(file, map_location="cpu", weights_only=True) if file.exists() else None

    def write_state(self, state: Mapping[str, Any], every: float = 0.0) -> None:
        """Replace the state, and plan the next one `every` seconds later, or later still if writing is slow."""
        start = time.monotonic()
        atomic_write(self.path / "state" / "state.pt", lambda file: torch.save(dict(state), file))
        now = time.monotonic()
        self._next_state = now + max(every, (now - start) / _SHARE)

    def plan_state(self, every: float) -> None:
        """The next state is due `every` seconds from now."""
        self._next_state = time.monotonic() + every

    @property
    def state_is_due(self) -> bool:
        return time.monotonic() >= self._next_state

    def log(self, name: str, key: str, keep_until: int) -> CsvLog:
        """The log `name`, cut off behind `keep_until` (a value of its column `key`)."""
        self._logs.append(CsvLog(self.path / name, key, keep_until))
        return self._logs[-1]

    def close(self) -> None:
        for log in self._logs:
            log.close()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished; its state is of no more use and goes."""
        self.close()
        atomic_write(self.path / "result.json", json.dumps(result, indent=2) + "\n")
        self.remove_state()

    def remove_state(self) -> None:
        """Remove the state of a finished run."""
        shutil.rmtree(self.path / "state", ignore_errors=True)

    def tidy(self) -> None:
        """Remove what a process left that was killed right after `finish` wrote the mark."""
        self.remove_state()
        self.owned.tidy()
