"""What training and validation do with a batch alike: the forward pass, the loss, what is measured, means over batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from relevit.explainers import forward_with_relevance, scale_to_unit
from relevit.explainers.foreground_share import foreground_share
from relevit.models.families import logits_of
from relevit.models.working import working
from relevit.training.batches import Batch, Items, loader
from relevit.training.input_gradients import logits_and_input_gradient
from relevit.training.losses import confidence_loss
from relevit.training.methods import Method
from relevit.training.monitor import check_finite, collapsed
from relevit.training.terms import LossInputs, Numbers, Term, total

MAP_FIGURES = ("foreground_share", "collapsed")
VALIDATION_FIGURES = ("classification_loss",)


@dataclass(frozen=True)
class Step:
    """A method at work on a model: from a batch to the terms of its loss.

    Attributes:
        numbers: the method's, such as lambda_bg.
        target: whose map, that of the "label" or of the "predicted" class.
        explainer: whose maps, a name in `relevit.explainers.EXPLAINERS`.
        second_order: whether a step of training keeps the graph of gradients within the maps.
        patches: of an image; None for a model without relevance maps.
        reference: the model as it was before training, where the method wants to know what it says.
    """

    method: Method
    numbers: Numbers
    model: nn.Module
    accelerator: Accelerator
    target: str = "label"
    explainer: str = "gae"
    second_order: bool = False
    patches: int | None = None
    reference: nn.Module | None = None

    def forward(self, batch: Batch, *, with_maps: bool, second_order: bool = False) -> LossInputs:
        """Logits, and what the method asks for beside them."""
        images = self._as_weights(batch.images)
        raw = maps = gradient = other = known = None
        with self.accelerator.autocast():
            if with_maps:
                labels = None if self.target == "predicted" else batch.labels
                logits, raw = forward_with_relevance(
                    self.model, images, labels, self.explainer, normalize=False, second_order=second_order
                )
                with torch.set_grad_enabled(raw.requires_grad), torch.autocast(images.device.type, enabled=False):
                    maps = scale_to_unit(raw)
            if self.method.input_gradient is not None:
                temperature = self.numbers["temperature"]
                logits, gradient = logits_and_input_gradient(
                    self.model, images, batch.labels, self.method.input_gradient, temperature
                )
            elif not with_maps:
                logits = logits_of(self.model, images)
            if batch.others is not None:
                other = logits_of(self.model, self._as_weights(batch.others))
            if self.reference is not None:
                with torch.no_grad():
                    known = logits_of(self.reference, images)
        return LossInputs(logits, maps, batch.masks, batch.ignore, batch.labels, raw, gradient, other, known)

    def _as_weights(self, images: Tensor) -> Tensor:
        """Images in the type of the model's weights (float64 ones, most often for a test)."""
        return images.to(next(self.model.parameters()).dtype)

    def terms(self, inputs: LossInputs) -> tuple[dict[str, Term], Tensor]:
        """The terms of the method's loss, and the loss, their weighted sum."""
        terms = self.method.loss(inputs, self.numbers)
        return terms, total(terms)

    def learn(self, batch: Batch, weight: float, number: int) -> dict[str, float]:
        """Add `weight` times the gradient of the batch's loss to the weights' `.grad`; the batch's figures.

        Raises NonFiniteLossError naming step `number`.
        """
        inputs = self.forward(batch, with_maps=self.method.needs_maps, second_order=self.second_order)
        terms, loss = self.terms(inputs)
        self.accelerator.backward(loss * weight)
        figures = batch_figures(inputs, terms, loss, self.patches)
        check_finite(number, figures, batch.names, inputs.logits, inputs.maps)
        return figures

    def validate(self, items: Items, batch_size: int, workers: int, number: int) -> dict[str, float]:
        """The method's loss and the other figures, means over all samples of `items`, by the model in evaluation mode.

        Maps are computed for every method, since their share on the foreground is wanted, and so is Eq. 4,
        `classification_loss`, for the rule for the learning rate.
        Raises NonFiniteLossError naming step `number`.
        """
        accelerator = self.accelerator
        mine = range(accelerator.process_index, len(items), accelerator.num_processes)
        keys = [[(0, index) for index in mine[first : first + batch_size]] for first in range(0, len(mine), batch_size)]
        filler = not keys  # more processes than samples: one is run through, and does not count
        batches = loader(
            items, lambda: iter([[(0, 0)]] if filler else keys), workers, accelerator.device.type == "cuda"
        )
        tally = Tally()
        with working(self.model), torch.no_grad():
            for batch in batches:
                batch = batch.to(accelerator.device)
                inputs = self.forward(batch, with_maps=self.patches is not None)
                figures = batch_figures(inputs, *self.terms(inputs), self.patches)
                confidence = confidence_loss(inputs.logits, self.numbers.get("temperature", 1.0))
                figures |= dict.fromkeys(VALIDATION_FIGURES, confidence.item())
                check_finite(number, figures, batch.names, inputs.logits, inputs.maps, role="validation")
                tally.add(figures, 0 if filler else len(batch.names))
        return tally.over_processes(accelerator).means()


def batch_figures(inputs: LossInputs, terms: Mapping[str, Term], loss: Tensor, patches: int | None) -> dict[str, float]:
    """A batch's loss, terms, accuracy and, where there are maps, their share on the foreground and how many collapsed.

    All are means over the batch. Samples without a label (-1) count as wrong.
    """
    with torch.no_grad():
        values = {"loss": loss, **{name: term.value for name, term in terms.items()}}
        values["accuracy"] = (inputs.logits.argmax(dim=1) == inputs.labels).float().mean()
        if inputs.maps is not None and patches is not None:
            share = foreground_share(inputs.maps, inputs.masks, inputs.ignore)
            flat = collapsed(inputs.maps, patches).float()
            values |= zip(MAP_FIGURES, (share.mean(), flat.mean()), strict=True)
        numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()  # one wait for the device
    return dict(zip(values, numbers, strict=True))


class Tally:
    """Means over samples of what was measured batch by batch."""

    def __init__(self, sums: Mapping[str, float] | None = None, count: int = 0) -> None:
        self.sums, self.count = dict(sums or {}), count

    def add(self, values: Mapping[str, float], count: int) -> None:
        """Count means over `count` samples; of none, they do not count."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + (value * count if count else 0.0)
        self.count += count

    def over_processes(self, accelerator: Accelerator) -> Tally:
        """The tally of all processes together."""
        if accelerator.num_processes == 1:
            return self
        mine = torch.tensor([*self.sums.values(), self.count], dtype=torch.float64, device=accelerator.device)
        *sums, count = accelerator.reduce(mine, "sum").tolist()  # type: ignore[union-attr]
        return Tally(dict(zip(self.sums, sums, strict=True)), round(count))

    def means(self) -> dict[str, float]:
        """The mean of each value."""
        return {name: value / max(1, self.count) for name, value in self.sums.items()}
