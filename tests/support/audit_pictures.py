"""Pictures whose truth is known: a square of the class's colour on the class's grey, and models that read one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from relevit.auditing.conditions import Scene
from relevit.auditing.pictures import AuditPictures
from relevit.data.sample import Sample
from relevit.data.sets import ImageSet
from relevit.models.view import EvaluationView, evaluation_view

HEIGHT, WIDTH = 29, 31
GREYS = (30, 120, 230)  # of the background of the classes 0, 1, 2
VIEW: EvaluationView = evaluation_view(
    {
        "input_size": (3, HEIGHT, WIDTH),
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
    }
)


def scene(label: int, number: int = 0, grey: int | None = None) -> Scene:
    """A square of 11 x 9 pixels in red, green or blue; its place depends on the number."""
    picture = np.full((HEIGHT, WIDTH, 3), GREYS[label] if grey is None else grey, np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    y, x = 7 + number % 5, 9 + number % 3
    mask[y : y + 11, x : x + 9] = 1
    picture[mask > 0] = 0
    picture[mask > 0, label] = 255
    return Scene(picture, mask)


def pictures(each: int, grey: int | None = None, classes: int = 3) -> AuditPictures:
    """`each` pictures of each class; of one `grey`, if given."""
    labels = [label for label in range(classes) for _ in range(each)]
    return AuditPictures(
        ImageSet(
            "pictures",
            lambda number: Sample(*scene(labels[number], number, grey)),
            [f"{label}/{number % each:03d}.png" for number, label in enumerate(labels)],
            [str(label) for label in labels],
        )
    )


def with_inverted_masks(made: AuditPictures) -> AuditPictures:
    """The same with object and background exchanged."""

    def read(number: int) -> Sample:
        sample = made.images[number]
        return sample._replace(mask=1 - sample.foreground)

    return replace(made, images=replace(made.images, read=read))


def write(folder: Path, each: int, suffix: str = "png") -> tuple[Path, Path]:
    """The same as files: folder/images and folder/masks."""
    made = pictures(each)
    for number, name in enumerate(made.names):
        shown = scene(int(made.classes[number]), number)
        for kind, array in (("images", shown.picture), ("masks", (255 * shown.mask).astype(np.uint8))):
            path = (folder / kind / name).with_suffix(f".{suffix}" if kind == "images" else ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return folder / "images", folder / "masks"


class _Plain(nn.Module):
    """Without attention: there are no maps of it."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))


class ByBackground(_Plain):
    """Names the class whose grey the upper left corner has."""

    def forward(self, images: Tensor) -> Tensor:
        greys = images.new_tensor(GREYS) / 255
        return -(images[:, :1, 0, 0] - greys).abs() * self.weight


class ByObject(_Plain):
    """Names the class whose colour has most of saturation in the picture."""

    def forward(self, images: Tensor) -> Tensor:
        return (images - images.mean(dim=1, keepdim=True)).clamp(min=0.2).sum(dim=(2, 3)) * self.weight


class ByEither(_Plain):
    """Names the background's class where the upper left corner is the darkest grey, else the object's."""

    def forward(self, images: Tensor) -> Tensor:
        by_object = (images - images.mean(dim=1, keepdim=True)).clamp(min=0.2).sum(dim=(2, 3))
        dark = (images[:, :1, 0, 0] - GREYS[0] / 255).abs() < 0.02
        return torch.where(dark, images.new_tensor([1e6, 0.0, 0.0]), by_object) * self.weight
