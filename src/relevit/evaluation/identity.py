"""What the rows of an evaluation depend on: the identity of every model and benchmark, for the folder's config.json."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relevit.evaluation.engine import Runner, Transform, view_facts
from relevit.evaluation.folder import ResultsFolder
from relevit.evaluation.sources import Source
from relevit.models.fingerprints import of_weights as fingerprint
from relevit.versions import versions


def settings_of(
    sources: Mapping[str, Source],
    runners: Sequence[Runner],
    answers: Mapping[str, Mapping[str, str]],
    protocol: str,
    precision: str,
    format: str,
) -> dict[str, Any]:
    """What the rows depend on; see folder.py."""
    return {
        "protocol": protocol,
        "precision": precision,
        "format": format,
        "models": {
            runner.name: {
                "architecture": type(runner.net).__name__,
                "weights": fingerprint(runner.net.state_dict()),
                "view": view_facts(runner.view) or _qualified(runner.view),
            }
            for runner in runners
        },
        "benchmarks": {name: source.identity() for name, source in sources.items()},
        "answers": {name: dict(models) for name, models in answers.items()},
        "about": versions(),
    }


def _qualified(view: Transform) -> str:
    """The name of a function or of an object's class."""
    named = view if hasattr(view, "__qualname__") else type(view)
    return f"{named.__module__}.{named.__qualname__}"


def told_settings(folder: ResultsFolder, sources: Mapping[str, Source], runners: Sequence[Runner]) -> dict[str, Any]:
    config = folder.config
    return {
        "precision": config["precision"],
        "format": config["format"],
        "models": {runner.name: config["models"][runner.name] for runner in runners},
        "rows": {
            name: {runner.name: folder.rows(name, runner.name).relative_to(folder.out).as_posix() for runner in runners}
            for name in sources
        },
    }


def digest_of(answers: Sequence[tuple[int, ...]]) -> str:
    """A hash of the right answers of every image, which are few different ones."""
    number: dict[tuple[int, ...], int] = {}
    order = np.array([number.setdefault(tuple(each), len(number)) for each in answers], np.int64)
    different = [[int(each) for each in right] for right in number]
    return hashlib.blake2b(order.tobytes() + str(different).encode(), digest_size=8).hexdigest()
