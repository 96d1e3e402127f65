"""What a measurement is: what it needs, the rows that it finds, and the figures of these rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa
import torch
from torch import Tensor, nn

from relevit.data.sets import ImageSet, Item, StreamSet
from relevit.errors import UserError
from relevit.evaluation.batches import Batch, Framing
from relevit.evaluation.rows import Part
from relevit.models.families import class_count
from relevit.models.working import device_of


class LoadedModel(NamedTuple):
    """A model by name with its preprocessing."""

    name: str
    net: nn.Module
    view: Any  # most often an `EvaluationView`


class Work(NamedTuple):
    """A measurement of one model on one set, ready to begin.

    rows: from a batch in each of the measurement's framings to what was found; called in the order of the images, without
    gradients. truth: what tells the right answers of this set from others; None where they are in the data.
    """

    rows: Callable[[Sequence[Batch]], Part]
    truth: str | None = None


@runtime_checkable
class Measurement(Protocol):
    """A row of the table of measurements: a frozen dataclass whose fields are its options.

    What is random in it depends on the seed and the image's place alone, so that shards and processes change nothing.
    """

    needs: ClassVar[str]  # "images", "masks", or "train_and_test"
    description: ClassVar[str]

    @property
    def batch_size(self) -> int:
        """Images in a batch where nobody says it."""
        ...

    def columns(self) -> pa.Schema:
        """Its own columns of a row."""
        ...

    def framings(self, model: LoadedModel) -> Sequence[Any]:
        """How the model is shown an image: `relevit.evaluation.batches.Framing`, most often one."""
        ...

    def begin(self, model: LoadedModel, images: Any) -> Work:
        """Check options, model and set (an `ImageSet`, most often); no image is read yet. Raises UserError for what does not go
        together."""
        ...

    def figures(self, rows: pa.Table) -> Any:
        """The result of the rows of the images that count: it yields (name, value) and has `to_dict()`."""
        ...


def own_view(measurement: Any, model: LoadedModel) -> list[Framing]:
    """`framings` of a measurement that shows each model its own view of the picture alone."""
    return [Framing(model.view)]


class RightAnswers:
    """Which classes of a model are right for an image of a set, and which compete there.

    wanted: False where the right classes are not needed, so that folders need not be classes of the model.
    """

    def __init__(
        self, model: LoadedModel, images: ImageSet | StreamSet, class_map: Any = None, wanted: bool = True
    ) -> None:
        self.model, self.wanted = model, wanted
        self.of_set = images.right_classes(model.net, class_map) if wanted else None
        self.candidates = images.competing_classes(model.net)

    def known(self, item: Item) -> tuple[int, ...] | None:
        """The right classes; none where the model lacks the image's class, None where no label is known."""
        if self.of_set is not None:
            return self.of_set[item.place]
        return (item.label,) if self.wanted and item.label >= 0 else None

    def of(self, item: Item) -> tuple[int, ...] | None:
        """The same. Raises UserError for a label that is no class of the model."""
        right, classes = self.known(item), class_count(self.model.net)
        if right and classes and not all(0 <= label < classes for label in right):
            raise UserError(
                f"{item.name} has the label {max(right)}, but the model knows the classes 0 to {classes - 1}"
            )
        return None if right is None else tuple(int(label) for label in right)

    def among_candidates(self, logits: Tensor) -> Tensor:
        """Logits (batch, classes) with minus infinity at the classes that do not compete in this set."""
        if self.candidates is None:
            return logits
        shut = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        shut[self.candidates] = False
        return logits.masked_fill(shut, -torch.inf)


def by_batch(
    model: LoadedModel,
    columns: Callable[..., Any],
    truth: str | None = None,
    *,
    counts: Callable[[Item], bool] | None = None,
    reason: str = "",
) -> Work:
    """The work of a measurement with one framing.

    columns: its own columns of a batch, from the items and the tensors, which are where the model is; or these with whether
    each of the images counts. counts: whether an image does, where it can be told before. reason: why the others do not.
    """

    def rows(batches: Sequence[Batch]) -> Part:
        (batch,) = batches
        items = [item for item in batch.items if counts is None or counts(item)]
        faults = [*batch.faults, *((item, reason) for item in batch.items if item not in items)]
        if not items:
            return Part([], {}, faults)
        tensors = on_device(batch, model.net)
        if len(items) < len(batch.items):
            places = [place for place, item in enumerate(batch.items) if item in items]
            tensors = tuple(tensor[places] for tensor in tensors)
        found, there = made if isinstance(made := columns(items, *tensors), tuple) else (made, None)
        if there is None or bool(there.all()):
            return Part(items, found, faults)
        some = {name: values[there.to(values.device)] for name, values in found.items()}
        faults += [(item, reason) for item, here in zip(items, there.tolist(), strict=True) if not here]
        return Part([item for item, here in zip(items, there.tolist(), strict=True) if here], some, faults)

    return Work(rows, truth)


def on_device(batch: Batch, net: nn.Module) -> tuple[Tensor, ...]:
    """The tensors of a batch where the model is."""
    home = device_of(net)
    return tuple(tensor.to(home, non_blocking=True) for tensor in batch.tensors)
