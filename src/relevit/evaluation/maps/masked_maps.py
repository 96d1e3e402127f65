"""Maps of images with masks, batch by batch: what the tests of where a map lies have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from relevit.data.sets import ImageSet, Item
from relevit.errors import UserError
from relevit.evaluation.measurement import LoadedModel, RightAnswers, Work, by_batch
from relevit.explainers import EXPLAINERS, forward_with_relevance
from relevit.models.families import class_count

TARGETS = ("predicted", "label")


def maps_of_masked(
    model: LoadedModel,
    images: ImageSet,
    explainer: str,
    target: str,
    class_map: Any,
    found: Callable[[Tensor, Tensor, Tensor], Any],
    reason: str = "",
) -> Work:
    """The work of a measurement of maps and masks.

    target: whose map, the "predicted" class's or the "label"'s. found: from maps (batch, height, width) in [0, 1], the objects and
    the pixels that count for neither side, both boolean and in the same frame, to what `by_batch` takes. reason: as there.
    Raises UserError for an unknown option, or a label outside the model's classes where labels are the target.
    """
    for name, value, known in (("target", target, TARGETS), ("explainer", explainer, sorted(EXPLAINERS))):
        if value not in known:
            raise UserError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    labels = _Labels(model, images, class_map) if target == "label" else None

    def columns(items: Sequence[Item], pictures: Tensor, masks: Tensor, ignore: Tensor) -> Any:
        wanted = None if labels is None else torch.tensor([labels.of(item) for item in items], device=pictures.device)
        return found(forward_with_relevance(model.net, pictures, wanted, explainer)[1], masks, ignore)

    return by_batch(model, columns, reason=reason)


class _Labels:
    """The class of a model whose map is taken: an image's label. Raises UserError where a set tells that it has others."""

    def __init__(self, model: LoadedModel, images: ImageSet, class_map: Any) -> None:
        self.classes = class_count(model.net)
        self.right = RightAnswers(model, images, class_map)
        if images.labels is not None or images.right is not None:  # known without reading an image
            for place in range(len(images)):
                self.of(images.item(place))

    def of(self, item: Item) -> int:
        known = self.right.known(item)
        if not known or known[0] < 0:
            raise UserError(
                f"the class of {item.name} is not known, so there is no map of it: name its folder by wnid or class index, "
                "give a class map, or take the predicted class as target"
            )
        if self.classes is not None and known[0] >= self.classes:
            raise UserError(
                f"the label {known[0]} of {item.name} is not one of the model's classes 0 to {self.classes - 1}"
            )
        return known[0]
