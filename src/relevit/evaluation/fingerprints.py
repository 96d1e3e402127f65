"""What the rows of a measurement depend on: the identity of every model, set and right answer, for the folder's config.json."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relevit.data.sets import ImageSet, StreamSet
from relevit.evaluation.batches import Transform, view_facts
from relevit.evaluation.measurement import LoadedModel, Work
from relevit.models.fingerprints import of_weights
from relevit.versions import versions


def settings_of(
    models: Sequence[LoadedModel],
    sets: Mapping[str, ImageSet | StreamSet],
    works: Mapping[str, Mapping[str, Work]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The settings, and the identities of models, sets and right answers; see folder.py."""
    truths = {
        name: {model: work.truth for model, work in of_set.items() if work.truth} for name, of_set in works.items()
    }
    return {
        **settings,
        "models": {
            model.name: {
                "architecture": type(model.net).__name__,
                "weights": of_weights(model.net.state_dict()),
                "view": view_facts(model.view) or _qualified(model.view),
            }
            for model in models
        },
        "benchmarks": {name: images.identity() for name, images in sets.items()},
        "answers": truths,
        "about": versions(),
    }


def _qualified(view: Transform) -> str:
    """The name of a function or of an object's class."""
    named: Any = view if hasattr(view, "__qualname__") else type(view)
    return f"{named.__module__}.{named.__qualname__}"


def of_answers(answers: Sequence[tuple[int, ...] | None]) -> str:
    """A hash of the right answers of every image, which are few different ones."""
    number: dict[tuple[int, ...] | None, int] = {}
    order = np.array(
        [number.setdefault(None if each is None else tuple(each), len(number)) for each in answers], np.int64
    )
    different = [None if right is None else [int(each) for each in right] for right in number]
    return hashlib.blake2b(order.tobytes() + str(different).encode(), digest_size=8).hexdigest()
