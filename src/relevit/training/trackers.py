"""The trackers of accelerate that show a run: TensorBoard, wandb, mlflow and others."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from relevit.errors import UserError
from relevit.files import atomic_write

PROJECT = "relevit"


def trackers_of(track: Sequence[str] | str | None) -> list[str]:
    """The names in a list, or in one text with commas; none for "none".

    Raises UserError for a tracker that accelerate does not know, and for one that is not installed.
    """
    given = [track] if isinstance(track, str) else track or []
    names = list(dict.fromkeys(name.strip() for text in given for name in text.split(",") if name.strip() != "none"))
    known, installed = sorted(map(str, LOGGER_TYPE_TO_CLASS)), {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in known:
            raise UserError(f"track: there is no tracker {name!r}: choose of {', '.join(known)}, or none")
        if name not in installed and LOGGER_TYPE_TO_CLASS[name].__module__ == GeneralTracker.__module__:
            raise UserError(f"track: {name} is not installed: pip install {name.replace('_', '-')}, or leave it out")
    return names


def start_tracker(name: str, folder: Path, step: int, about: Mapping[str, Any]) -> Any:
    """A tracker of the run in `folder`, which has been trained for `step` steps; in one that was started before, it goes on.

    about: the settings, which all but TensorBoard show.
    """
    kind = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        tracker = kind(name, folder, purge_step=step + 1)
        tracker.start()
        return tracker
    options = {"wandb": _for_wandb, "mlflow": _for_mlflow}.get(name, lambda *_: {})(folder, _identity(folder))
    tracker = kind(PROJECT, folder, **options) if kind.requires_logging_directory else kind(PROJECT, **options)
    tracker.start()
    if step == 0:
        plain = (bool, int, float, str)
        tracker.store_init_configuration({key: v if isinstance(v, plain) else str(v) for key, v in about.items()})
    return tracker


def _identity(folder: Path) -> str:
    """By which a tracker knows the run again; drawn once for a folder."""
    file = folder / "tracked.json"
    if not file.exists():
        atomic_write(file, json.dumps({"id": uuid.uuid4().hex[:16]}) + "\n")
    return json.loads(file.read_text())["id"]


def _for_wandb(folder: Path, identity: str) -> dict[str, Any]:
    return {"id": identity, "resume": "allow", "name": folder.name, "dir": str(folder)}


def _for_mlflow(folder: Path, identity: str) -> dict[str, Any]:
    import mlflow

    where = f"tags.relevit_run = '{identity}'"
    runs = mlflow.search_runs(search_all_experiments=True, filter_string=where, output_format="list")
    known = {"run_id": runs[0].info.run_id} if runs else {}
    return {"run_name": folder.name, "tags": {"relevit_run": identity}, **known}
