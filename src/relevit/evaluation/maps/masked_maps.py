"""Maps of images with masks, batch by batch: what the tests of where a map lies have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relevit.data.sets import ImageSet, Item
from relevit.errors import UserError
from relevit.evaluation.batches import Batch
from relevit.evaluation.measurement import LoadedModel, RightAnswers, Work, on_device
from relevit.evaluation.rows import Part
from relevit.explainers import EXPLAINERS, forward_with_relevance
from relevit.models.families import class_count

TARGETS = ("predicted", "label")


class MaskedMaps(NamedTuple):
    """Maps in [0, 1], and the masks of the same frame, of a batch of images."""

    items: list[Item]
    maps: Float[Tensor, "batch height width"]
    masks: Bool[Tensor, "batch height width"]  # the object
    ignore: Bool[Tensor, "batch height width"]  # pixels that count for neither side


def maps_of_masked(
    model: LoadedModel,
    images: ImageSet,
    explainer: str,
    target: str,
    class_map: Any,
    found: Callable[[MaskedMaps], tuple[dict[str, Any], Bool[Tensor, " batch"] | None, str]],
) -> Work:
    """The work of a measurement of maps and masks.

    target: whose map, the "predicted" class's or the "label"'s. found: from maps to columns, which of the images count (None:
    all), and why the others do not.
    Raises UserError for an unknown option, or a label outside the model's classes where labels are the target.
    """
    for name, value, known in (("target", target, TARGETS), ("explainer", explainer, sorted(EXPLAINERS))):
        if value not in known:
            raise UserError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    labels = _Labels(model, images, class_map) if target == "label" else None

    def rows(batches: Sequence[Batch]) -> Part:
        (batch,) = batches
        if not batch.items:
            return Part([], {}, batch.faults)
        pictures, masks, ignore = on_device(batch, model.net)
        wanted = None if labels is None else torch.tensor([labels.of(i) for i in batch.items], device=pictures.device)
        _, maps = forward_with_relevance(model.net, pictures, wanted, explainer)
        columns, there, reason = found(MaskedMaps(batch.items, maps, masks, ignore))
        if there is None or bool(there.all()):
            return Part(batch.items, columns, batch.faults)
        there = there.cpu()
        some = {name: values[there.to(values.device)] for name, values in columns.items()}
        kept, gone = (
            [batch.items[place] for place in torch.nonzero(which)[:, 0].tolist()] for which in (there, ~there)
        )
        return Part(kept, some, [*batch.faults, *((item, reason) for item in gone)])

    return Work(rows)


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
