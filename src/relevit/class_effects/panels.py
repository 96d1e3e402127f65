"""Images with both models' maps and answers, for the page of per-class effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from relevit.class_effects.figures import ClassEffects
from relevit.evaluation.accuracy.comparison import changed
from relevit.evaluation.accuracy.predictions import Predictions
from relevit.explainers.overlays import looked_at, said
from relevit.models.view import EvaluationView
from relevit.report.panels import Panel, drawn, tile

Loaded = tuple[nn.Module, EvaluationView]


class EffectPanels:
    """Makes panels of a benchmark's images; their maps are made anew for the few that are shown.

    models: the two, by name, each with its view, in the order before, after. data: the benchmark, indexed by an image's place
    to something with `.image`. predictions: by model. masked: whether the object's mask of each image (`.mask`, of the size that models
    see) is a picture of its own, and its outline on the maps.
    """

    def __init__(
        self,
        models: Mapping[str, Loaded],
        data: Any,
        predictions: Mapping[str, Predictions],
        seed: int = 0,
        masked: bool = False,
    ) -> None:
        self.models, self.data, self.seed, self.masked = dict(models), data, seed, masked
        self.rows = {name: predictions[name] for name in self.models}
        self.before, self.after = self.rows.values()
        rights = list(zip(self.before.answers, map(str, self.before.groups), strict=True))
        self._names = {right[0]: group for right, group in reversed(rights) if len(right) == 1}  # class index -> folder

    def kinds(self, each: int) -> dict[str, list[Panel]]:
        """Corrected, unchanged and ruined images, `each` of a kind at most."""
        kinds = drawn(changed(self.before, self.after), self.before.groups, each=each, seed=self.seed)
        return {kind: [self.panel(row) for row in rows] for kind, rows in kinds.items()}

    def classes(self, effects: ClassEffects, count: int, each: int) -> dict[str, dict[str, list[Panel]]]:
        """ "helped" and "harmed" -> class -> panels, of the `count` most helped and harmed classes: the images that changed that
        way first, then the others of the class, in an order drawn by the seed."""
        chosen = {
            "helped": [(effect.name, effect.corrected) for effect in effects.most_helped(count)],
            "harmed": [(effect.name, effect.ruined) for effect in effects.most_harmed(count)],
        }
        return {kind: {name: self._of_class(name, rows, each) for name, rows in of} for kind, of in chosen.items()}

    def _of_class(self, name: str, first: Sequence[int], count: int) -> list[Panel]:
        order = np.random.default_rng(self.seed).permutation(len(self.before.groups))
        changed, own = np.isin(order, first), self.before.groups[order] == name
        return [self.panel(int(row)) for row in [*order[changed], *order[own & ~changed]][:count]]

    def panel(self, row: int) -> Panel:
        """The image as the first model sees it, both maps of what each model names, and both answers."""
        item = self.data[int(self.before.indices[row])]
        mask = item.mask if self.masked else None
        tiles: list[tuple[str, np.ndarray]] = []
        answers = []
        for (name, (net, view)), rows in zip(self.models.items(), self.rows.values(), strict=True):
            shown, relevance = looked_at(net, view, item.image)
            if not tiles:
                tiles += [("image", tile(shown))] + [("mask", tile(shown, None, mask, dim=0.75))] * (mask is not None)
            if relevance is not None:
                tiles.append((f"map, {name}", tile(shown, relevance, mask)))
            answer, right = int(rows.top5[row, 0]), bool(rows.hit1[row])
            answers.append(said(name, net, answer, float(rows.confidence[row]), right, self._names))
        return Panel(self.before.keys[row], str(self.before.groups[row]), tiles, answers)
