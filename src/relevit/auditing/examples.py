"""Which pictures an audit shows: one in every version, and of the classes that depend most on their background."""

from __future__ import annotations

import numpy as np
import torch

from relevit.auditing import Audit
from relevit.auditing.conditions import ALONE, CONDITIONS, ORIGINAL, OTHER
from relevit.auditing.figures import matches
from relevit.auditing.versions import Versions
from relevit.explainers import forward_with_relevance
from relevit.models.attention import unsupported_reason
from relevit.models.model_facts import class_name
from relevit.models.working import working
from relevit.report.panels import Answer, Panel, tile

CLASSES_SHOWN = 5  # classes with pictures, of each model
EACH = 2  # pictures of such a class


class Examples:
    """Makes panels of an audit's pictures; versions and maps are made anew for the few that are shown."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self.versions = Versions(audit.pictures, audit.donors)

    def strip(self) -> list[tuple[str, np.ndarray]]:
        """One picture, the first in an order drawn by the seed that has them all, in every condition, with its words."""
        possible = next(iter(self.audit.observed.values())).possible
        order = np.random.default_rng(self.audit.seed).permutation(len(self.audit.pictures))
        most = max(order, key=lambda number: sum(bool(possible[key][number]) for key in CONDITIONS))
        made = {key: self.versions.picture(key, int(most)) for key in CONDITIONS}
        return [(CONDITIONS[key].words, tile(shown)) for key, shown in made.items() if shown is not None]

    def of_classes(self, model: str) -> dict[str, list[Panel]]:
        """Class -> panels, of the classes whose fall is surely above 0, the first CLASSES_SHOWN of them; pictures that are
        right as they are and wrong on another class's background first, in an order drawn by the seed."""
        found = self.audit.figures[model].classes
        chosen = [each.name for each in found if each.fall.low > 0][:CLASSES_SHOWN]
        return {name: [self.panel(model, number) for number in self.pictures_of(model, name)] for name in chosen}

    def pictures_of(self, model: str, name: str) -> list[int]:
        """The numbers of the pictures to show of a class."""
        seen, targets = self.audit.observed[model], self.audit.targets[model]
        own = np.asarray(self.audit.pictures.classes) == name
        there = own & seen.possible[OTHER]
        misled = there & matches(seen.predicted[ORIGINAL], targets) & (seen.predicted[OTHER] != targets)
        order = np.random.default_rng(self.audit.seed).permutation(len(targets))
        return [int(i) for i in [*order[misled[order]], *order[(there & ~misled)[order]]]][:EACH]

    def panel(self, model: str, number: int) -> Panel:
        """The picture and its map, the object on another class's background and its map, the background alone."""
        audit, seen = self.audit, self.audit.observed[model]
        each = audit.models[model]
        scene = self.versions.scene(number)
        mask = each.view.with_mask(scene.picture, scene.mask).mask.numpy()
        behind = audit.pictures.classes[int(audit.donors.other[number])]
        tiles, answers = [], []
        for key, caption in ((ORIGINAL, "as it is"), (OTHER, f"background of {behind}"), (ALONE, "object removed")):
            picture = self.versions.picture(key, number)
            if picture is None:
                continue
            values = each.view(picture)
            shown = each.view.restore(values)
            tiles.append((caption, tile(shown)))
            if key != ALONE and unsupported_reason(each.net) is None:
                with working(each.net) as device, torch.no_grad():
                    relevance = forward_with_relevance(each.net, values[None].to(device))[1][0].float().cpu().numpy()
                tiles.append(("its map", tile(shown, relevance, mask)))
            said, right = int(seen.predicted[key][number]), int(audit.targets[model][number])
            confidence = float(np.nan_to_num(seen.confidence[key][number]))
            words = self.class_of(model, said)
            answers.append(Answer(caption, words, min(1.0, confidence), said == right >= 0))
        return Panel(audit.pictures.names[number], audit.pictures.classes[number], tiles, answers)

    def class_of(self, model: str, index: int) -> str:
        """A class that a model named, by the name that it has among the pictures, else by the model's own."""
        if index < 0:
            return "no number"
        where = np.flatnonzero(self.audit.targets[model] == index)
        return self.audit.pictures.classes[where[0]] if len(where) else class_name(self.audit.models[model].net, index)
