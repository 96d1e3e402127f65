"""Accuracy as a measurement: a model's first five classes for every image, and whether a right one is among them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import torch
from torch import Tensor, nn

from relevit.data.open import AnySet
from relevit.data.sets import Item
from relevit.errors import UserError
from relevit.evaluation.accuracy.answers import first_five, hits
from relevit.evaluation.accuracy.predictions import COLUMNS, Predictions
from relevit.evaluation.fingerprints import of_answers
from relevit.evaluation.measurement import LoadedModel, RightAnswers, Work, by_batch, own_view
from relevit.models.families import logits_of
from relevit.models.working import device_of

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TopFive:
    """R@1, R@5 and calibration.

    Attributes:
        precision: of the forward pass, a name of PRECISIONS.
        class_map: for class folders that are named neither by wnid nor by class index.
    """

    precision: str = "float32"
    class_map: Any = None
    batch_size: ClassVar = 64
    needs: ClassVar = "images"
    description: ClassVar = "R@1 and R@5, percent"
    framings = own_view

    def columns(self) -> pa.Schema:
        """See predictions.py."""
        return COLUMNS

    def begin(self, model: LoadedModel, images: AnySet) -> Work:
        """Raises UserError for a folder that is no class of the model."""
        right = RightAnswers(model, images, self.class_map)
        chosen = None if right.candidates is None else torch.tensor(right.candidates, device=device_of(model.net))

        def columns(items: Sequence[Item], pictures: Tensor) -> dict[str, Any]:
            answers = [(item.label,) if (known := right.known(item)) is None else known for item in items]
            with torch.inference_mode():
                logits = forward(model.net, pictures, self.precision)
                _check_labels(images.name, model.name, answers, logits.shape[1])
                top5, confidence = first_five(logits, None if chosen is None else chosen.to(logits.device))
            hit1, hit5 = hits(top5, answers)
            return {"answers": answers, "top5": top5, "confidence": confidence, "hit1": hit1, "hit5": hit5}

        return by_batch(model, columns, None if right.of_set is None else of_answers(right.of_set))

    def figures(self, rows: pa.Table) -> Predictions:
        """The answers, from which the figures are computed."""
        return Predictions(rows)


def forward(net: nn.Module, images: Tensor, precision: str) -> Tensor:
    """Logits (batch, classes), float32."""
    low = PRECISIONS[precision]
    try:
        with nullcontext() if low is None else torch.autocast(images.device.type, low):
            return logits_of(net, images).float()
    except torch.OutOfMemoryError as error:
        raise UserError("The device has too little memory: give a smaller batch size.") from error


def _check_labels(benchmark: str, model: str, answers: Sequence[tuple[int, ...]], classes: int) -> None:
    wrong = [label for each in answers for label in each if not 0 <= label < classes]
    if wrong:
        raise UserError(f"{benchmark} has the label {wrong[0]}, but {model} knows the classes 0 to {classes - 1}")
