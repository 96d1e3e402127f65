"""The audit of models: their classes of the pictures, what they answer, the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from relevit.auditing.conditions import ORIGINAL, Donors, Versions, draw_donors
from relevit.auditing.figures import figures
from relevit.auditing.measure import BackgroundReliance, observe
from relevit.auditing.pictures import AuditPictures
from relevit.auditing.result import Audit
from relevit.data.classes import ClassMap, class_index
from relevit.errors import UserError
from relevit.evaluation.measurement import LoadedModel
from relevit.models.families import class_count
from relevit.models.model_facts import class_name
from relevit.models.view import EvaluationView

Loaded = tuple[nn.Module, EvaluationView]
Observe = Callable[..., Any]


def audit_models(
    models: Mapping[str, Loaded],
    pictures: AuditPictures,
    *,
    class_map: ClassMap | None = None,
    seed: int = 0,
    out: Path | None = None,
    begin: Callable[[], object] = lambda: None,
    **options: Any,
) -> Audit:
    """Audit one or several models on the same pictures; the others are compared with the first.

    models: name -> (model, view), as `relevit.load` gives them. pictures: from `find_pictures` or `builtin_pictures`; larger ones
    than the views take are reduced. class_map: the class of each folder, where its name does not tell
    (`relevit.data.classes.class_index`). seed: of the backgrounds that are drawn. out: a folder for the rows, where the same call
    goes on after an interruption. begin: called when all is checked, before the long work. options: batch_size, workers (processes
    that make pictures) and device (where to run; by default where each model is), as `observe` takes them.

    Started by `torchrun` or `accelerate launch`, the processes share the pictures; all must make the same call.

    Raises UserError where there is no model, a folder is no class of a model, there are fewer than two classes, or classes
    are to be the first model's answers and another model has another number of classes.
    """
    if not models:
        raise UserError("there is no model to audit: name one or several")
    loaded = {name: LoadedModel(name, net, view) for name, (net, view) in models.items()}
    size = max(int(np.ceil(max(view.height, view.width) / view.crop_pct)) for _, view in models.values())
    if pictures.labels == "predicted":
        pictures, targets = _answered(list(loaded.values()), pictures, size, options)
    else:
        targets = {name: _targets(model, pictures, class_map) for name, model in loaded.items()}
        pictures = pictures.of_classes(_merged(pictures.classes, list(targets.values())))
    _check_classes(pictures)
    donors = draw_donors(pictures.names, pictures.classes, seed)
    begin()
    measurement = BackgroundReliance(Versions(pictures.images, donors, size))
    settings = {"seed": seed, "size": size}
    seen = observe(list(loaded.values()), measurement, out=out, settings=settings, **options)
    shown = None if pictures.images.objects is None else pictures.objects
    found = {name: figures(seen[name], targets[name], pictures.classes, donors, shown) for name in loaded}
    return Audit(pictures, donors, loaded, targets, seen, found, seed, size)


def _targets(model: LoadedModel, pictures: AuditPictures, class_map: ClassMap | None) -> np.ndarray:
    """The model's class of each picture."""
    count = class_count(model.net)
    if pictures.images.labels is not None:
        known = len(pictures.images.class_names)
        if count != known:
            raise UserError(
                f"{model.name} has {count or 'an unknown number of'} classes, the built-in benchmark {known}: audit it on pictures of its own classes, "
                "with --images DIR"
            )
        return np.asarray(pictures.images.labels)
    try:
        index = class_index(set(pictures.classes), model.net, class_map)
    except UserError as error:
        raise UserError(f"{model.name}: {error}") from error
    return np.array([index[group] for group in pictures.classes])


def _merged(classes: Sequence[str], targets: Sequence[np.ndarray]) -> list[str]:
    """The name of each picture's class; folders that are one class to every model bear their names together."""
    keys = list(zip(*(map(int, labels) for labels in targets), strict=True))
    folders: dict[tuple[int, ...], set[str]] = {}
    for key, name in zip(keys, classes, strict=True):
        folders.setdefault(key, set()).add(name)
    return [" + ".join(sorted(folders[key])) for key in keys]


def _answered(
    models: Sequence[LoadedModel], pictures: AuditPictures, size: int, options: Mapping[str, Any]
) -> tuple[AuditPictures, dict[str, np.ndarray]]:
    """Classes that are the first model's answers to the pictures as they are."""
    first, *others = models
    counts = {model.name: class_count(model.net) for model in models}
    for model in others:
        if counts[model.name] != counts[first.name]:
            raise UserError(
                f"the classes of the pictures are not known and {first.name} is to name them, but {model.name} has other classes "
                f"({counts[model.name] or 'an unknown number'}, not {counts[first.name]}): put the pictures into class folders"
            )
    nobody = np.full(len(pictures), -1)
    versions = Versions(pictures.images, Donors(nobody, nobody), size)
    seen = observe([first], BackgroundReliance(versions, (ORIGINAL,), maps=False), **options)
    answers = seen[first.name].predicted[ORIGINAL]
    names = {index: class_name(first.net, index) if index >= 0 else "none" for index in set(answers.tolist())}
    return pictures.of_classes([names[index] for index in answers.tolist()]), dict.fromkeys(counts, answers)


def _check_classes(pictures: AuditPictures) -> None:
    """Raises UserError for fewer than two classes."""
    if len(set(pictures.classes)) > 1:
        return
    named = "the first model names one class for all pictures"
    lost = ""
    if pictures.left_out:
        name, reason = pictures.left_out[0]
        lost = f"; {len(pictures.left_out)} pictures are left out, the first is {name}: {reason}"
    raise UserError(
        f"{named if pictures.labels == 'predicted' else 'there is one class'}, but an audit exchanges the backgrounds of "
        f"classes: give pictures of at least two{lost}"
    )
