"""Which pictures an audit shows: one in every version, and of the classes that depend most on their background."""

from __future__ import annotations

import numpy as np

from relevit.auditing.conditions import ALONE, CONDITIONS, ORIGINAL, OTHER, Versions
from relevit.auditing.figures import matches
from relevit.auditing.result import Audit
from relevit.explainers.overlays import looked_at, said
from relevit.report.panels import Panel, tile

CLASSES_SHOWN = 5  # classes with pictures, of each model
EACH = 2  # pictures of such a class


class Examples:
    """Makes panels of an audit's pictures; versions and maps are made anew for the few that are shown."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self.versions = Versions(audit.pictures.images, audit.donors, audit.size)

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
        _, net, view = audit.models[model]
        scene, target = self.versions.scene(number), int(audit.targets[model][number])
        mask = view.with_mask(scene.picture, scene.mask).mask.numpy()
        behind = audit.pictures.classes[int(audit.donors.other[number])]
        names = dict(reversed(list(zip(audit.targets[model].tolist(), audit.pictures.classes, strict=True))))
        tiles, answers = [], []
        for key, caption in ((ORIGINAL, "as it is"), (OTHER, f"background of {behind}"), (ALONE, "object removed")):
            picture = self.versions.picture(key, number)
            if picture is None:
                continue
            shown, relevance = looked_at(net, view, picture, with_map=key != ALONE)
            tiles.append((caption, tile(shown)))
            if relevance is not None:
                tiles.append(("its map", tile(shown, relevance, mask)))
            answer = int(seen.predicted[key][number])
            answers.append(
                said(caption, net, answer, float(seen.confidence[key][number]), answer == target >= 0, names)
            )
        return Panel(audit.pictures.names[number], audit.pictures.classes[number], tiles, answers)
