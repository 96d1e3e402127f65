"""The folder of a training run: its configuration, logs and state, so that the same call goes on where it was stopped.

    config.json   all settings that matter for the result, fingerprints of samples and model, versions
    split.csv     which sample is for training and which for validation
    steps.csv     one row per optimiser step;  epochs.csv: one row per epoch, row 0 is before training
    trials/       with lr="auto": a run for each learning rate that was tried
    best/, last/  checkpoints;  state/: model, optimiser and progress, replaced atomically;  result.json: marks the end

The state is the only thing that a resumed run goes on from. Rows that were logged after it was written are cut off, and
what a checkpoint holds beyond it is written again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relevit.data.manifest import Row, write_manifest
from relevit.files import atomic_write
from relevit.folders import OwnedFolder
from relevit.models.fingerprints import of_weights
from relevit.models.saving import is_checkpoint, read_saved

KIND = "relevit finetune"
CONFIG = "config.json"
TRIALS = "trials"  # the folder of the trials of learning rates, in that of the run (learning_rate.py)
_SHARE = 0.05  # of the time may go into writing states: they come less often where writing takes long


def initial_fingerprint(path: Path, model: nn.Module) -> str:
    """The fingerprint of the weights that the run at `path` starts from.

    That of the model's weights, unless these are what this very run left in a model trained in place: then the one it recorded.
    """
    now, config = of_weights(model.state_dict()), path / CONFIG
    if not config.exists():
        return now
    state, checkpoints = path / "state" / "state.pt", [path / name for name in ("best", "last")]
    left = [torch.load(state, map_location="cpu", weights_only=True)["model"]] if state.exists() else []
    left += [read_saved(model, folder) for folder in checkpoints if is_checkpoint(folder)]
    if any(of_weights(other) == now for other in left):
        try:
            return json.loads(config.read_text()).get("initial_weights", now)
        except ValueError:  # RunFolder says so
            return now
    return now


class RunFolder:
    """A run's folder with these settings. Opening reads only; `with folder:` holds it, so that no other command does.

    Raises UserError for a folder that is no run's or in use, and for a run with other settings, listing the differences.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self._owner = OwnedFolder(path, KIND, settings, may_hold=(TRIALS,), record=CONFIG)
        self._next_state = 0.0

    def __enter__(self) -> RunFolder:
        self._owner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._owner.__exit__(*error)

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.path / "best"

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.path / "last"

    @property
    def result(self) -> dict[str, Any] | None:
        """The metrics of a finished run, else None."""
        file = self.path / "result.json"
        return json.loads(file.read_text()) if file.exists() else None

    def write_split(self, split: Sequence[Row]) -> None:
        """Write which sample is for what, where an earlier call has not."""
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
        """Whether it is time to write the state again."""
        return time.monotonic() >= self._next_state

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished; its state is of no more use and goes."""
        atomic_write(self.path / "result.json", json.dumps(result, indent=2) + "\n")
        self.remove_state()

    def remove_state(self) -> None:
        """Remove the state of a finished run."""
        shutil.rmtree(self.path / "state", ignore_errors=True)

    def tidy(self) -> None:
        """Remove what a process left that was killed right after `finish` wrote the mark."""
        self.remove_state()
        self._owner.tidy()
