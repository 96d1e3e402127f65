"""Pictures of a few validation samples: image with mask, map before training and map after."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

from relevit.explainers import forward_with_relevance
from relevit.files import atomic_write
from relevit.models.attention import unsupported_reason
from relevit.models.view import EvaluationView
from relevit.models.working import working
from relevit.report.pictures import outlined, overlay, png
from relevit.training.batches import Items, collate


class Previews:
    """Maps of `count` samples spread over `items`, before and after training, as PNG files in `folder`.

    What the model sees before is kept in the folder, for the end of a run that was interrupted. Does nothing without a
    folder, items or maps.
    """

    def __init__(self, folder: Path | None, items: Items | None, count: int, view: EvaluationView, target: str) -> None:
        self.folder, self.view, self.target, self.batch = folder, view, target, None
        if folder is not None and items is not None and count > 0:
            chosen = sorted({round(i) for i in np.linspace(0, len(items) - 1, min(count, len(items)))})
            self.batch = collate([items[0, index] for index in chosen])

    def _maps(self, model: nn.Module, device: torch.device) -> dict[str, np.ndarray] | None:
        """Maps (batch, height, width) and predicted classes (batch,), by the model in evaluation mode."""
        if self.batch is None or unsupported_reason(model) is not None:
            return None
        batch = self.batch.to(device)
        labels = None if self.target == "predicted" or bool((batch.labels < 0).any()) else batch.labels
        with working(model), torch.no_grad():
            logits, maps = forward_with_relevance(model, batch.images, labels)
        return {"maps": maps.float().cpu().numpy(), "predicted": logits.argmax(dim=1).cpu().numpy()}

    def before(self, model: nn.Module, device: torch.device) -> None:
        """Keep what the model sees before training."""
        seen = self._maps(model, device)
        if seen is not None and self.folder is not None:
            atomic_write(self.folder / "before.npz", lambda file: np.savez(file, **seen))  # type: ignore[arg-type]

    def after(self, model: nn.Module, device: torch.device) -> None:
        """One PNG per sample, called NUMBER-NAME-before-CLASS-after-CLASS.png for what was predicted."""
        seen = self._maps(model, device)
        if seen is None or self.folder is None or self.batch is None or not (self.folder / "before.npz").exists():
            return
        with np.load(self.folder / "before.npz") as kept:
            before = dict(kept)
        for number, name in enumerate(self.batch.names):
            picture, mask = self.view.restore(self.batch.images[number]), self.batch.masks[number].numpy()
            shown = [picture, overlay(picture, before["maps"][number]), overlay(picture, seen["maps"][number])]
            row = np.concatenate([outlined(panel, mask) for panel in shown], axis=1)
            stem = re.sub(r"[^\w.-]+", "_", name)[-80:]
            classes = f"before-{before['predicted'][number]}-after-{seen['predicted'][number]}"
            atomic_write(self.folder / f"{number:02d}-{stem}-{classes}.png", png(row))
