"""What training and validation do with a batch alike: the forward pass, what is measured, means over batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from relevit.explainers import forward_with_relevance, scale_to_unit
from relevit.explainers.foreground_share import foreground_share
from relevit.models.working import working
from relevit.training.batches import Batch, Items, loader
from relevit.training.input_gradients import logits_and_input_gradient
from relevit.training.losses import confidence_loss
from relevit.training.methods import Method
from relevit.training.monitor import check_finite, collapsed
from relevit.training.terms import Options, Outputs, Term, total

MAP_MEASURES = ("foreground_share", "collapsed")
VALIDATION_MEASURES = ("classification_loss",)


def forward(
    model: nn.Module,
    batch: Batch,
    accelerator: Accelerator,
    method: Method,
    options: Options,
    *,
    with_maps: bool,
    target: str = "label",
    second_order: bool = False,
    explainer: str = "gae",
    reference: nn.Module | None = None,
) -> Outputs:
    """Logits, and what the method asks for beside them: see `outputs.Outputs`.

    with_maps: relevance maps by `explainer`, of the label's or the predicted class. reference: the model as it was before
    training, where the method wants to know what it says.
    """
    raw = maps = gradient = other = known = None
    with accelerator.autocast():
        if with_maps:
            labels = None if target == "predicted" else batch.labels
            logits, raw = forward_with_relevance(
                model, batch.images, labels, explainer, normalize=False, second_order=second_order
            )
            with torch.set_grad_enabled(raw.requires_grad), torch.autocast(batch.images.device.type, enabled=False):
                maps = scale_to_unit(raw)
        if method.input_gradient is not None:
            logits, gradient = logits_and_input_gradient(
                model, batch.images, batch.labels, method.input_gradient, options["temperature"]
            )
        elif not with_maps:
            logits = model(batch.images)
        if batch.others is not None:
            other = model(batch.others)
        if reference is not None:
            with torch.no_grad():
                known = reference(batch.images)
    return Outputs(logits, maps, batch.masks, batch.ignore, batch.labels, raw, gradient, other, known)


def measures(outputs: Outputs, terms: Mapping[str, Term], loss: Tensor, patches: int | None) -> dict[str, float]:
    """A batch's loss, terms, accuracy and, where there are maps, their share on the foreground and how many collapsed.

    All are means over the batch. Samples without a label (-1) count as wrong.
    """
    with torch.no_grad():
        values = {"loss": loss, **{name: term.value for name, term in terms.items()}}
        values["accuracy"] = (outputs.logits.argmax(dim=1) == outputs.labels).float().mean()
        if outputs.maps is not None and patches is not None:
            share = foreground_share(outputs.maps, outputs.masks, outputs.ignore)
            flat = collapsed(outputs.maps, patches).float()
            values |= zip(MAP_MEASURES, (share.mean(), flat.mean()), strict=True)
        numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()  # one wait for the device
    return dict(zip(values, numbers, strict=True))


class Tally:
    """Means over samples of what was measured batch by batch."""

    def __init__(self, sums: Mapping[str, float] | None = None, count: int = 0) -> None:
        self.sums, self.count = dict(sums or {}), count

    def add(self, values: Mapping[str, float], count: int) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + (value * count if count else 0.0)
        self.count += count

    def over_processes(self, accelerator: Accelerator) -> Tally:
        """The tally of all processes together."""
        if accelerator.num_processes == 1:
            return self
        own = torch.tensor([*self.sums.values(), self.count], dtype=torch.float64, device=accelerator.device)
        *sums, count = accelerator.reduce(own, "sum").tolist()  # type: ignore[union-attr]
        return Tally(dict(zip(self.sums, sums, strict=True)), round(count))

    def means(self) -> dict[str, float]:
        return {name: value / max(1, self.count) for name, value in self.sums.items()}


def validation_pass(
    model: nn.Module,
    items: Items,
    method: Method,
    options: Options,
    accelerator: Accelerator,
    *,
    target: str,
    patches: int | None,
    batch_size: int,
    workers: int = 0,
    step: int = 0,
    explainer: str = "gae",
    reference: nn.Module | None = None,
) -> dict[str, float]:
    """The method's loss and the other measures, means over all samples of `items`, by the model in evaluation mode.

    Maps are computed for every method (`patches` None: for none), since their share on the foreground is wanted, and so is
    Eq. 4, `classification_loss`, for the rule for the learning rate.
    Raises NonFiniteLossError naming `step`.
    """
    own = range(accelerator.process_index, len(items), accelerator.num_processes)
    keys: list[list[tuple[int, int]]] = [
        [(0, index) for index in own[first : first + batch_size]] for first in range(0, len(own), batch_size)
    ]
    filler = not keys  # more processes than samples: one is run through, and does not count
    batches = loader(items, lambda: iter([[(0, 0)]] if filler else keys), workers, accelerator.device.type == "cuda")
    tally = Tally()
    with working(model), torch.no_grad():
        for batch in batches:
            batch = batch.to(accelerator.device)
            outputs = forward(
                model,
                batch,
                accelerator,
                method,
                options,
                with_maps=patches is not None,
                target=target,
                explainer=explainer,
                reference=reference,
            )
            terms = method.loss(outputs, options)
            values = measures(outputs, terms, total(terms), patches)
            confidence = confidence_loss(outputs.logits, options.get("temperature", 1.0))
            values |= dict.fromkeys(VALIDATION_MEASURES, confidence.item())
            check_finite(step, values, batch.names, outputs.logits, outputs.maps, role="validation")
            tally.add(values, 0 if filler else len(batch.names))
    return tally.over_processes(accelerator).means()


def share_gradients(accelerator: Accelerator, parameters: list[Any]) -> None:
    """Add up the gradients of all processes; each has weighted its loss by its share of the samples.

    Done here and not by DistributedDataParallel, whose forward pass the relevance maps would have to go around.
    """
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    flat = accelerator.reduce(flat, "sum")
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
