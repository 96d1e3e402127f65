"""Images with both models' maps and answers, for the page of per-class effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from relevit.class_effects.figures import ClassEffect, ClassEffects
from relevit.evaluation.accuracy.comparison import changed
from relevit.evaluation.accuracy.predictions import Predictions
from relevit.explainers import forward_with_relevance
from relevit.models.attention import unsupported_reason
from relevit.models.model_facts import class_name
from relevit.models.view import EvaluationView
from relevit.models.working import working
from relevit.report.panels import Answer, Panel, drawn, spread, tile

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
        only = [
            (each[0], str(group))
            for each, group in zip(self.before.answers, self.before.groups, strict=True)
            if len(each) == 1
        ]
        self._names = dict(reversed(only))  # class index -> the name of its folder

    def kinds(self, each: int) -> dict[str, list[Panel]]:
        """Corrected, unchanged and ruined images, `each` of a kind at most."""
        kinds = drawn(changed(self.before, self.after), self.before.groups, each=each, seed=self.seed)
        return {kind: self.panels(rows) for kind, rows in kinds.items()}

    def classes(self, effects: ClassEffects, count: int, each: int) -> dict[str, dict[str, list[Panel]]]:
        """ "helped" and "harmed" -> class -> panels, of the `count` most helped and harmed classes: the images that changed that
        way first, then the others of the class, in an order drawn by the seed."""
        helped, harmed = effects.most_helped(count), effects.most_harmed(count)
        return {
            "helped": {one.name: self.panels(self._of_class(one, one.corrected, each)) for one in helped},
            "harmed": {one.name: self.panels(self._of_class(one, one.ruined, each)) for one in harmed},
        }

    def _of_class(self, effect: ClassEffect, first: Sequence[int], count: int) -> list[int]:
        names = np.asarray(self.before.groups).astype(str)
        order = np.random.default_rng(self.seed).permutation(len(names))
        wanted = set(first)
        chosen = [int(i) for i in order if int(i) in wanted]
        rest = [int(i) for i in order if names[i] == effect.name and int(i) not in wanted]
        return spread([*chosen, *rest], np.arange(len(names)), count)

    def panels(self, rows: Iterable[int]) -> list[Panel]:
        """Panels of images, by their places in the predictions."""
        return [self.panel(row) for row in rows]

    def panel(self, row: int) -> Panel:
        """The image as the first model sees it, both maps of what each model names, and both answers."""
        item = self.data[int(self.before.indices[row])]
        picture: Any = getattr(item, "image", None)
        if picture is None:
            picture = item[0]
        mask = item.mask if self.masked else None
        tiles: list[tuple[str, np.ndarray]] = []
        answers = []
        for (name, (net, view)), predictions in zip(self.models.items(), self.rows.values(), strict=True):
            values = view(picture)
            shown = view.restore(values)
            if not tiles:
                tiles += [
                    ("image", tile(shown)),
                    *([] if mask is None else [("mask", tile(shown, None, mask, dim=0.75))]),
                ]
            if unsupported_reason(net) is None:
                tiles.append((f"map, {name}", tile(shown, relevance_of(net, values), mask)))
            said = int(predictions.top5[row, 0])
            confidence = float(np.nan_to_num(predictions.confidence[row]))
            answers.append(Answer(name, self.class_of(net, said), min(1.0, confidence), bool(predictions.hit1[row])))
        return Panel(self.before.keys[row], str(self.before.groups[row]), tiles, answers)

    def class_of(self, net: nn.Module, index: int) -> str:
        """A class that was named: as the benchmark calls it, else as the model does."""
        if index < 0:
            return "no number"
        return self._names[index] if index in self._names else class_name(net, index)


def relevance_of(net: nn.Module, values: torch.Tensor) -> np.ndarray:
    """The map of the predicted class of one view (3, height, width), in [0, 1]; the model's mode is as before."""
    with working(net) as device, torch.no_grad():
        return forward_with_relevance(net, values[None].to(device))[1][0].float().cpu().numpy()
