"""R@1 and R@5: is the right class the first, or among the first five, of a model's answers?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from relevit.statistics import interval
from relevit.statistics.estimate import Estimate


def hits_at(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], k: int) -> Bool[Tensor, " batch"]:
    """Whether the label is among the k highest logits. With k classes or fewer it always is.

    Of equal logits, the lower class index counts as the higher, so a model that answers with a constant gains nothing; logits that
    are not finite never hit.
    """
    own = logits.gather(1, labels[:, None])  # (batch, 1)
    index = torch.arange(logits.shape[1], device=logits.device)
    ahead = (logits > own) | ((logits == own) & (index < labels[:, None]))  # (batch, classes)
    return (ahead.sum(dim=1) < k) & logits.isfinite().all(dim=1)


@dataclass(frozen=True)
class Accuracy:
    """The hits of one model on one benchmark, image by image; the figures are percent.

    Attributes:
        hit1, hit5: whether the right class was the first, was among the first five; in the order of the benchmark's images.
        groups: the class name of each image (of a folder benchmark, its folder).
        objects: what each image shows, where several show one object; the intervals are then clustered by object.
    """

    hit1: Bool[np.ndarray, " images"]
    hit5: Bool[np.ndarray, " images"]
    groups: Shaped[np.ndarray, " images"]
    objects: Shaped[np.ndarray, " images"] | None = None

    @cached_property
    def r1(self) -> float:
        return _percent(self.hit1)

    @cached_property
    def r5(self) -> float:
        return _percent(self.hit5)

    @cached_property
    def r1_interval(self) -> Estimate:
        """R@1 with its 95% interval: Wilson's, images count as independent; where `objects` are known, a bootstrap over objects."""
        return interval.share(self.hit1, self.objects).percent

    @cached_property
    def r5_interval(self) -> Estimate:
        return interval.share(self.hit5, self.objects).percent

    def per_class(self) -> dict[str, Accuracy]:
        """The same for each class alone, in sorted order."""
        names, member, counts = np.unique(self.groups, return_inverse=True, return_counts=True)
        places = np.split(np.argsort(member, kind="stable"), np.cumsum(counts)[:-1])
        return {str(name): self.only(chosen) for name, chosen in zip(names, places, strict=True)}

    def only(self, chosen: Shaped[np.ndarray, " some"]) -> Accuracy:
        """The same for some of the images: whether each is among them, or their places."""
        objects = None if self.objects is None else self.objects[chosen]
        return Accuracy(self.hit1[chosen], self.hit5[chosen], self.groups[chosen], objects)

    def __len__(self) -> int:
        return len(self.hit1)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield "r1", self.r1
        yield "r5", self.r5

    def to_dict(self, *, classes: bool = True) -> dict:
        """Everything but the single hits, ready for JSON; of no images the figures are None."""
        figures: dict[str, Any] = {
            "images": len(self),
            "r1": round(self.r1, 4) if len(self) else None,
            "r1_interval": [round(end, 4) for end in self.r1_interval.ends],
            "r5": round(self.r5, 4) if len(self) else None,
            "r5_interval": [round(end, 4) for end in self.r5_interval.ends],
        }
        if classes:
            figures["classes"] = {name: part.to_dict(classes=False) for name, part in self.per_class().items()}
        return figures


def _percent(hits: np.ndarray) -> float:
    return 100.0 * float(hits.mean()) if len(hits) else float("nan")
