"""A linear classifier on pixels: what each pixel adds to a logit is known, so that tests of removal can be done by hand."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relevit.data.sample import Sample
from relevit.models.view import EvaluationView, evaluation_view

HEIGHT, WIDTH = 5, 7
MEAN, STD = (0.4, 0.5, 0.7), (0.2, 0.5, 0.3)


def plain_view(height: int, width: int, mean: Any = (0.0,) * 3, std: Any = (1.0,) * 3, **more: Any) -> EvaluationView:
    """The whole picture at this size, resized bilinearly where it has another; `more`: other settings."""
    size = {"input_size": (3, height, width), "mean": mean, "std": std}
    return evaluation_view({**size, "interpolation": "bilinear", "crop_pct": 1.0, **more})


VIEW = plain_view(HEIGHT, WIDTH, MEAN, STD)


class Linear(nn.Module):
    """A linear classifier of five classes on normalised pixels, in double precision."""

    num_classes = 5

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(scale * torch.randn(5, 3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", images.double(), self.weight)


def contribution(
    model: Any, images: Tensor, target: Tensor | None, *, second_order: bool = False
) -> tuple[Tensor, Tensor]:
    """A map on the pixels: what each adds to the target's logit."""
    assert target is not None
    return model(images), (images.double() * model.weight.detach()[target]).sum(dim=1)


def samples(count: int = 7, seed: int = 3) -> list[Sample]:
    """Noise with labels of five classes; the object is everywhere."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.ones((HEIGHT, WIDTH), np.float32)
    return [Sample(picture, mask, int(rng.integers(5)), None, f"p{number}") for number, picture in enumerate(pictures)]
