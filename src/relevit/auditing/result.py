"""What an audit found: figures and sentences on every model, and how the others differ from the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from relevit.auditing.conditions import CONDITIONS, ORIGINAL, OTHER, OWN, Donors
from relevit.auditing.figures import ModelFigures, matches, named_another
from relevit.auditing.measure import Observed
from relevit.auditing.pictures import AuditPictures
from relevit.auditing.verdict import CLASSIFIER, RULE, by_contrast, change_sentence, effect_of, judge, sentences
from relevit.evaluation.measurement import LoadedModel
from relevit.statistics import paired
from relevit.statistics.estimate import Estimate
from relevit.versions import libraries


@dataclass(frozen=True)
class Audit:
    """What an audit found. models, in the order given; pictures, with their classes; donors; and by model its class of each
    picture, what was observed, and the figures. seed: of the draws. size: of the pictures' short side at most."""

    pictures: AuditPictures
    donors: Donors
    models: dict[str, LoadedModel]
    targets: dict[str, np.ndarray]
    observed: dict[str, Observed]
    figures: dict[str, ModelFigures]
    seed: int
    size: int

    @property
    def first(self) -> str:
        """The model that the others are compared with."""
        return next(iter(self.figures))

    @property
    def objects(self) -> int:
        """How many different objects the pictures show."""
        return len(np.unique(self.pictures.objects))

    def effect(self, model: str) -> Estimate:
        """What the rule of the verdict judges."""
        return effect_of(self.figures[model], self.objects)

    def outcome(self, model: str) -> str:
        """The verdict in a word or two."""
        return judge(self.effect(model))

    @cached_property
    def sentences(self) -> dict[str, list[str]]:
        """The sentences of the verdict on each model."""
        predicted = self.pictures.labels == "predicted"
        found = {}
        for name, figures in self.figures.items():
            title = CLASSIFIER if len(self.figures) == 1 else name
            found[name] = sentences(title, figures, self.objects, predicted=predicted)
            gained = None if name == self.first else self.gained(name, ORIGINAL)
            if gained is not None:
                found[name].append(change_sentence(name, self.first, self.change(name), gained))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Every figure, ready for JSON: accuracies and shares in percent, differences in points."""
        return {
            "pictures": len(self.pictures),
            "objects": self.objects,
            "classes": len(set(self.pictures.classes)),
            "classes_from": self.pictures.labels,
            "masks": self.pictures.masks,
            "left_out": [{"file": name, "reason": reason} for name, reason in self.pictures.left_out],
            "seed": self.seed,
            "conditions": {key: condition.description for key, condition in CONDITIONS.items()},
            "rule": RULE,
            "models": {name: self._model(name) | self._against_first(name) for name in self.figures},
            "versions": libraries(),
        }

    def _model(self, name: str) -> dict[str, Any]:
        found = self.figures[name]
        verdict = {
            "outcome": self.outcome(name),
            "sentences": self.sentences[name],
            "rests_on": "contrast" if by_contrast(found, self.objects) else "pull",
            "effect": self.effect(name).to_dict(),
        }
        return {"verdict": verdict, **found.to_dict()}

    def _against_first(self, name: str) -> dict[str, Any]:
        if name == self.first:
            return {}
        gained = {key: self.gained(name, key) for key in CONDITIONS}
        return {
            "against": self.first,
            "effect_minus_first": self.change(name).to_dict(),
            "accuracy_minus_first": {key: change.to_dict() for key, change in gained.items() if change is not None},
            "relevance_on_background_minus_first": None if (more := self.moved(name)) is None else more.to_dict(),
        }

    def change(self, name: str) -> Estimate:
        """The effect on this model minus that on the first one, paired by object."""
        effects = self._contrasts if by_contrast(self.figures[self.first], self.objects) else self._pulls
        change = self._minus_first(name, effects, bound=2.0)
        assert change is not None  # there are at least two classes
        return change

    def gained(self, name: str, condition: str) -> Estimate | None:
        """Accuracy of this model minus that of the first one, paired by object; None where there are no such pictures."""
        return self._minus_first(name, lambda model: self._hits(model, condition))

    def moved(self, name: str) -> Estimate | None:
        """Share of relevance on the background of this model minus that of the first one, paired by object."""
        return self._minus_first(name, lambda model: self.observed[model].share)

    def _minus_first(
        self, name: str, values: Callable[[str], np.ndarray | None], bound: float = 1.0
    ) -> Estimate | None:
        """values: of a model for each picture, NaN where there is none."""
        here, there = values(name), values(self.first)
        known = None if here is None or there is None else ~np.isnan(here) & ~np.isnan(there)
        if here is None or there is None or known is None or not known.any():
            return None
        return paired.difference(there[known], here[known], self.pictures.objects[known], bound=bound).percent

    def _hits(self, name: str, condition: str) -> np.ndarray:
        seen = self.observed[name]
        return np.where(seen.possible[condition], matches(seen.predicted[condition], self.targets[name]), np.nan)

    def _contrasts(self, name: str) -> np.ndarray:
        return self._hits(name, OWN) - self._hits(name, OTHER)

    def _pulls(self, name: str) -> np.ndarray:
        named, chance = named_another(self.observed[name].predicted[OTHER], self.targets[name], self.donors)
        return np.where(self.donors.other >= 0, named - chance, np.nan)
