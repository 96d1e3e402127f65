"""The audit: does a classifier look at the background, and does the background mislead it?

pictures.py reads the pictures and their masks, conditions.py makes the versions of them, measure.py asks the models,
figures.py counts, verdict.py judges, examples.py chooses what is shown; report/audit_page.py shows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from relevit.auditing.conditions import CONDITIONS, ORIGINAL, OTHER, OWN, Donors, draw_donors
from relevit.auditing.figures import ClassFigures, Excess, ModelFigures, figures, matches
from relevit.auditing.measure import BackgroundReliance, Observed, observe
from relevit.auditing.pictures import AuditPictures
from relevit.auditing.verdict import CLASSIFIER, RULE, by_contrast, change_sentence, effect_of, judge, sentences
from relevit.data.classes import ClassMap, class_index
from relevit.errors import UserError
from relevit.evaluation.accuracy.recall import Accuracy
from relevit.evaluation.measurement import LoadedModel
from relevit.models.families import class_count
from relevit.models.model_facts import class_name
from relevit.models.view import EvaluationView
from relevit.statistics import paired
from relevit.statistics.estimate import Estimate
from relevit.versions import libraries

__all__ = ["Audit", "audit_models", "find_size"]

Loaded = tuple[nn.Module, EvaluationView]


@dataclass(frozen=True)
class Audit:
    """What an audit found. models, in the order given; pictures, with their classes; donors; and by model its class of each
    picture, what was observed, the figures, and the sentences of the verdict."""

    pictures: AuditPictures
    donors: Donors
    models: dict[str, LoadedModel]
    targets: dict[str, np.ndarray]
    observed: dict[str, Observed]
    figures: dict[str, ModelFigures]
    sentences: dict[str, list[str]]
    seed: int

    @property
    def objects(self) -> int:
        """How many different objects the pictures show."""
        return len(self.pictures) if self.pictures.objects is None else len(np.unique(self.pictures.objects))

    def outcome(self, model: str) -> str:
        """The verdict in a word or two."""
        return judge(effect_of(self.figures[model], self.objects))

    def to_dict(self) -> dict[str, Any]:
        """Every figure, ready for JSON: accuracies and shares in percent, differences in points."""
        models = {name: self._model(name) for name in self.figures}
        return {
            "pictures": len(self.pictures),
            "objects": self.objects,
            "classes": len(set(self.pictures.classes)),
            "classes_from": self.pictures.labels,
            "masks": self.pictures.masks,
            "left_out": [{"file": name, "reason": reason} for name, reason in self.pictures.left_out],
            "seed": self.seed,
            "conditions": {key: each.description for key, each in CONDITIONS.items()},
            "rule": RULE,
            "models": models,
            "versions": libraries(),
        }

    def _model(self, name: str) -> dict[str, Any]:
        found = self.figures[name]
        effect = effect_of(found, self.objects)
        basis = "contrast" if by_contrast(found, self.objects) else "pull"
        content: dict[str, Any] = {
            "verdict": {
                "outcome": self.outcome(name),
                "sentences": self.sentences[name],
                "rests_on": basis,
                "effect": effect.to_dict(),
            },
            "accuracy": {key: _accuracy(each) for key, each in found.accuracy.items() if len(each)},
            "fall_from_original": {key: each.to_dict() for key, each in found.falls.items()},
            "own_minus_other_background": None
            if found.contrast is None
            else {
                "own": round(found.contrast.own, 4),
                "other": round(found.contrast.other, 4),
                "original": round(found.contrast.original, 4),
                **found.contrast.difference.to_dict(),
            },
            "named_the_exchanged_background": _excess(found.pull),
            "named_from_the_background_alone": _excess(found.alone),
            "relevance_on_background": None if found.share is None else found.share.to_dict("percent"),
            "area_of_background": found.area.to_dict("percent"),
            "relevance_minus_area": None if found.more is None else found.more.to_dict(),
            "maps_without_relevance": found.flat,
            "classes": [_class(each) for each in found.classes],
        }
        first = next(iter(self.figures))
        if name != first:
            content["against"] = first
            content["effect_minus_first"] = self.change(name).to_dict()
            content["accuracy_minus_first"] = {
                key: change.to_dict() for key in CONDITIONS if (change := self.gained(name, key)) is not None
            }
            content["relevance_on_background_minus_first"] = (
                None if (more := self.moved(name)) is None else more.to_dict()
            )
        return content

    def change(self, name: str) -> Estimate:
        """The effect on this model minus that on the first one, paired by object."""
        first = next(iter(self.figures))
        by = by_contrast(self.figures[first], self.objects)
        here, there = (self._effects(each, by) for each in (name, first))
        known = ~np.isnan(here)
        return paired.difference(there[known], here[known], self._shown()[known], bound=2.0).percent

    def gained(self, name: str, condition: str) -> Estimate | None:
        """Accuracy of this model minus that of the first one, paired by object; None where there are no such pictures."""
        first = next(iter(self.figures))
        here, there = (self._hits(each, condition) for each in (name, first))
        known = self.observed[name].possible[condition]
        if not known.any():
            return None
        return paired.difference(there[known], here[known], self._shown()[known]).percent

    def moved(self, name: str) -> Estimate | None:
        """Share of relevance on the background of this model minus that of the first one, paired by object."""
        first = next(iter(self.figures))
        here, there = (self.observed[each].share for each in (name, first))
        if here is None or there is None:
            return None
        known = ~np.isnan(here) & ~np.isnan(there)
        if not known.any():
            return None
        return paired.difference(there[known], here[known], self._shown()[known]).percent

    def _hits(self, name: str, condition: str) -> np.ndarray:
        return matches(self.observed[name].predicted[condition], self.targets[name]).astype(float)

    def _effects(self, name: str, contrast: bool) -> np.ndarray:
        """Of each picture, NaN where there is none."""
        seen, targets = self.observed[name], self.targets[name]
        if contrast:
            both = seen.possible[OWN] & seen.possible[OTHER]
            return np.where(both, self._hits(name, OWN) - self._hits(name, OTHER), np.nan)
        there = self.donors.other >= 0
        known = np.unique(targets)
        said = seen.predicted[OTHER]
        wrong = np.isin(said, known) & (said != targets) & (said >= 0)
        named = matches(said, targets[self.donors.other]).astype(float)
        return np.where(there, named - wrong / max(1, len(known) - 1), np.nan)

    def _shown(self) -> np.ndarray:
        return np.arange(len(self.pictures)) if self.pictures.objects is None else np.asarray(self.pictures.objects)


def audit_models(
    models: Mapping[str, Loaded],
    pictures: AuditPictures,
    *,
    class_map: ClassMap | None = None,
    seed: int = 0,
    batch_size: int = 32,
    workers: int = 0,
    out: Path | None = None,
    device: Any = None,
    begin: Callable[[], object] | None = None,
) -> Audit:
    """Audit one or several models on the same pictures; the others are compared with the first.

    models: name -> (model, view), as `relevit.load` gives them. pictures: from `find_pictures` or `builtin_pictures`.
    class_map: the class of each folder, where its name does not tell (`relevit.data.classes.class_index`). seed: of the
    backgrounds that are drawn. workers: processes that make pictures. out: a folder for the rows, where the same call goes on
    after an interruption. device: where to run; by default where each model is. begin: called when all is checked, before the long work.

    Started by `torchrun` or `accelerate launch`, the processes share the pictures; all must make the same call.

    Raises UserError where there is no model, a folder is no class of a model, there are fewer than two classes, or classes
    are to be the first model's answers and another model has another number of classes.
    """
    if not models:
        raise UserError("there is no model to audit: name one or several")
    pictures, targets = _with_classes(models, pictures, class_map, batch_size, workers, device)
    donors = draw_donors(pictures.names, pictures.classes, seed)
    loaded = {name: LoadedModel(name, net, view) for name, (net, view) in models.items()}
    if begin is not None:
        begin()
    seen = observe(
        list(loaded.values()),
        pictures,
        donors,
        out=out,
        settings={"seed": seed, "size": pictures.size},
        device=device,
        batch_size=batch_size,
        workers=workers,
    )
    found = {name: figures(seen[name], targets[name], pictures.classes, donors, pictures.objects) for name in loaded}
    audit = Audit(pictures, donors, loaded, targets, seen, found, {}, seed)
    audit.sentences.update({name: _said(audit, name) for name in found})
    return audit


def _said(audit: Audit, name: str) -> list[str]:
    """The sentences on a model."""
    first = next(iter(audit.figures))
    title = CLASSIFIER if len(audit.figures) == 1 else name
    said = sentences(title, audit.figures[name], audit.objects, predicted=audit.pictures.labels == "predicted")
    gained = audit.gained(name, "original") if name != first else None
    if gained is not None:
        said.append(change_sentence(name, first, audit.change(name), gained))
    return said


def _with_classes(
    models: Mapping[str, Loaded],
    pictures: AuditPictures,
    class_map: ClassMap | None,
    batch_size: int,
    workers: int,
    device: Any,
) -> tuple[AuditPictures, dict[str, np.ndarray]]:
    """The pictures with the names of their classes, and by model their class indices. Raises UserError for fewer than two."""
    if pictures.labels == "predicted":
        pictures, targets = _answered(models, pictures, batch_size, workers, device)
    else:
        targets = _targets(models, pictures, class_map)
        pictures = replace(pictures, classes=_merged(pictures.classes, list(targets.values())))
    if len(set(pictures.classes)) < 2:
        what = (
            "the first model names one class for all pictures"
            if pictures.labels == "predicted"
            else "there is one class"
        )
        lost = ""
        if pictures.left_out:
            name, reason = pictures.left_out[0]
            lost = f"; {len(pictures.left_out)} pictures are left out, the first is {name}: {reason}"
        raise UserError(
            f"{what}, but an audit exchanges the backgrounds of classes: give pictures of at least two{lost}"
        )
    return pictures, targets


def find_size(models: Mapping[str, Loaded]) -> int:
    """The short side, in pixels, that the models' views reduce pictures to: the largest of them."""
    return max(int(np.ceil(max(view.height, view.width) / view.crop_pct)) for _, view in models.values())


def _targets(
    models: Mapping[str, Loaded], pictures: AuditPictures, class_map: ClassMap | None
) -> dict[str, np.ndarray]:
    """The class index of each picture, by model."""
    found = {}
    for name, (model, _) in models.items():
        index = pictures.index
        if index is None:
            try:
                index = class_index(set(pictures.classes), model, class_map)
            except UserError as error:
                raise UserError(f"{name}: {error}") from error
        elif class_count(model) != len(index):
            raise UserError(
                f"{name} has {class_count(model) or 'an unknown number of'} classes, the built-in benchmark "
                f"{len(index)}: audit it on pictures of its own classes, with --images DIR"
            )
        found[name] = np.array([index[each] for each in pictures.classes])
    return found


def _merged(classes: Any, targets: list[np.ndarray]) -> list[str]:
    """The name of each picture's class; folders that are one class to every model bear their names together."""
    keys = [tuple(int(each[number]) for each in targets) for number in range(len(classes))]
    folders: dict[tuple[int, ...], set[str]] = {}
    for key, name in zip(keys, classes, strict=True):
        folders.setdefault(key, set()).add(name)
    return [" + ".join(sorted(folders[key])) for key in keys]


def _answered(
    models: Mapping[str, Loaded], pictures: AuditPictures, batch_size: int, workers: int, device: Any
) -> tuple[AuditPictures, dict[str, np.ndarray]]:
    """Classes that are the first model's answers to the pictures as they are."""
    (first, (net, view)), *others = models.items()
    count = class_count(net)
    for name, (other, _) in others:
        if class_count(other) != count:
            raise UserError(
                f"the classes of the pictures are not known and {first} is to name them, but {name} has other classes "
                f"({class_count(other) or 'an unknown number'}, not {count}): put the pictures into class folders"
            )
    nobody = np.full(len(pictures), -1)
    seen = observe(
        [LoadedModel(first, net, view)],
        pictures,
        Donors(nobody, nobody),
        measurement=BackgroundReliance((ORIGINAL,), maps=False),
        device=device,
        batch_size=batch_size,
        workers=workers,
    )
    answers = seen[first].predicted[ORIGINAL]
    names = {int(each): class_name(net, int(each)) for each in set(answers.tolist()) if each >= 0}
    pictures = replace(pictures, classes=[names.get(int(each), "none") for each in answers])
    return pictures, dict.fromkeys(models, answers)


def _accuracy(found: Accuracy) -> dict[str, Any]:
    ends = [round(end, 4) for end in found.r1_interval.ends]
    return {"percent": round(found.r1, 4), "interval": ends, "pictures": len(found)}


def _excess(found: Excess) -> dict[str, Any]:
    return {
        "percent": round(found.rate, 4),
        "by_chance": round(found.chance, 4),
        "above_chance": found.difference.to_dict(),
    }


def _class(found: ClassFigures) -> dict[str, Any]:
    return {
        "class": found.name,
        "pictures": found.pictures,
        "fall": found.fall.to_dict(),
        "accuracy": {key: None if each is None else round(each, 4) for key, each in found.accuracy.items()},
        "relevance_on_background": None if found.share is None else round(found.share, 4),
        "area_of_background": round(found.area, 4),
    }


def as_json(audit: Audit) -> str:
    """`to_dict()` as text."""
    return json.dumps(audit.to_dict(), indent=2, ensure_ascii=False) + "\n"
