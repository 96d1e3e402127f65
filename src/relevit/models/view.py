"""Views of a sample: the geometry that takes a picture and its mask to the model's input, the same for both.

A `config` is what `relevit.models.loading.data_config` gives: `input_size` (3, height, width), `mean`, `std`, `interpolation`,
`crop_pct`, `crop_mode`. Protocol of the paper: training resizes to 256 x 256 (squashed), crops 224 at random and flips
with probability 0.5; evaluation resizes the short side to 256 and crops 224 in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from relevit.errors import UserError
from relevit.images import to_rgb

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
    "random": Image.Resampling.BILINEAR,  # timm's name for a filter drawn at random in training
}


class Framed(NamedTuple):
    """One sample in the model's input frame."""

    image: Float[Tensor, "3 height width"]  # normalised
    mask: Float[Tensor, "height width"]  # 1 on the object, fractions at its edge
    ignore: Bool[Tensor, "height width"]  # pixels that count for neither side


class _View:
    """What the views share: the model's input size, filter and normalisation."""

    def __init__(self, config: Mapping[str, Any]):
        channels, self.height, self.width = config["input_size"]
        if channels != 3:
            raise UserError(f"The model takes pictures of {channels} channels; only models for RGB are supported.")
        if config["interpolation"] not in _FILTERS:
            raise UserError(f"Unknown interpolation {config['interpolation']!r}: choose one of {', '.join(_FILTERS)}.")
        self.filter = _FILTERS[config["interpolation"]]
        self.mean = torch.tensor(config["mean"], dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(config["std"], dtype=torch.float32).view(-1, 1, 1)

    def normalise(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        """RGB in 0 to 255 to the model's input range."""
        values = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)  # (h, w, 3) -> (3, h, w)
        return (values.float() / 255 - self.mean) / self.std

    def restore(self, image: Float[Tensor, "3 height width"]) -> np.ndarray:
        """A normalised picture back as uint8 (height, width, 3), to look at."""
        values = image.detach().float().cpu() * self.std + self.mean
        return (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


class EvaluationView(_View):
    """The model's evaluation view, as timm's: a picture to (3, height, width); `with_mask` takes the mask along.

    `crop_mode` "center": the short side to input size / crop_pct, then the middle; "squash": both sides to that size
    whatever the shape, then the middle; "border": the long side, then a frame of the mean colour. `crop_rounds` "down": a crop
    whose middle is between two pixels begins at the first of them; otherwise at the even one, as torchvision's.
    """

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.crop_pct = config.get("crop_pct") or 0.875  # timm's default
        self.crop_mode = config.get("crop_mode") or "center"
        if self.crop_mode not in ("center", "squash", "border"):
            raise UserError(f"Unknown crop_mode {self.crop_mode!r}: choose center, squash or border.")
        self.rounds_down = config.get("crop_rounds") == "down"
        border = self.crop_mode == "border"
        self.fill = tuple(round(255 * value) if border else 0 for value in config["mean"])

    def __call__(self, image: Image.Image | np.ndarray) -> Float[Tensor, "3 height width"]:
        picture = as_picture(image)
        width, height = self._scaled(*picture.size)
        if (width, height) != picture.size:
            picture = picture.resize((width, height), self.filter)
        left, top = self._corner(width, height)
        return self.normalise(_crop(picture, left, top, self.width, self.height, self.fill))

    def with_mask(
        self,
        image: Image.Image | np.ndarray,
        mask: Float[np.ndarray, "h w"],
        ignore: Bool[np.ndarray, "h w"] | None = None,
    ) -> Framed:
        """The picture, its mask and its ignored pixels in the same view; what lies beyond the picture is background."""
        picture = as_picture(image)
        _same_size(picture, mask, ignore)
        width, height = self._scaled(*picture.size)
        left, top = self._corner(width, height)
        planes = _planes(mask, ignore, height, width)
        padding = (-left, left + self.width - width, -top, top + self.height - height)  # negative numbers crop
        soft = F.pad(planes[0], padding)
        ignored = F.pad(planes[1], padding) > 0
        return Framed(self(picture), soft.contiguous(), ignored.contiguous())

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        """Where the crop begins (left, top) in a picture of this size."""
        if self.rounds_down and width >= self.width and height >= self.height:  # as transformers does
            return (width - self.width) // 2, (height - self.height) // 2
        return _middle(width, self.width), _middle(height, self.height)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """The size (width, height) of the picture before the crop."""
        goal_width, goal_height = math.floor(self.width / self.crop_pct), math.floor(self.height / self.crop_pct)
        if self.crop_mode == "squash":
            return goal_width, goal_height
        if (
            self.crop_mode == "center" and goal_width == goal_height
        ):  # as torchvision: the long side is cut, not rounded
            if width <= height:
                return goal_width, int(goal_width * height / width)
            return int(goal_height * width / height), goal_height
        ratios = width / goal_width, height / goal_height
        ratio = max(ratios) if self.crop_mode == "border" else min(ratios)
        return max(1, round(width / ratio)), max(1, round(height / ratio))


class TrainingView(_View):
    """The random training view: squash to `resize` times the input size, crop at random, flip with probability `flip`.

    The image is resized by the config's filter, mask and ignored pixels bilinearly with antialiasing; a pixel is
    ignored where any ignored one has a share in it. `resize=1.0` leaves nothing to crop. All chance comes from the
    generator.
    """

    def __init__(self, config: Mapping[str, Any], resize: float = 256 / 224, flip: float = 0.5):
        super().__init__(config)
        if not resize >= 1:
            raise UserError(f"resize must be at least 1 (no crop), not {resize}.")
        if not 0 <= flip <= 1:
            raise UserError(f"flip is a probability from 0 to 1, not {flip}.")
        self.resize, self.flip = resize, flip

    def __call__(
        self,
        image: Image.Image | np.ndarray,
        mask: Float[np.ndarray, "h w"],
        ignore: Bool[np.ndarray, "h w"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Framed:
        picture = as_picture(image)
        _same_size(picture, mask, ignore)
        height, width = round(self.resize * self.height), round(self.resize * self.width)
        if picture.size != (width, height):
            picture = picture.resize((width, height), self.filter)
        top = int(torch.randint(height - self.height + 1, (), generator=generator))
        left = int(torch.randint(width - self.width + 1, (), generator=generator))
        flipped = bool(torch.rand((), generator=generator) < self.flip)

        values = self.normalise(picture.crop((left, top, left + self.width, top + self.height)))
        soft, ignored = _planes(mask, ignore, height, width)[:, top : top + self.height, left : left + self.width]
        if flipped:
            values, soft, ignored = values.flip(-1), soft.flip(-1), ignored.flip(-1)
        return Framed(values.contiguous(), soft.contiguous(), (ignored > 0).contiguous())


def evaluation_view(config: Mapping[str, Any]) -> EvaluationView:
    """The transform of a PIL picture (or uint8 (height, width, 3)) to the model's input (3, height, width)."""
    return EvaluationView(config)


def as_picture(image: Image.Image | np.ndarray) -> Image.Image:
    """A PIL picture or a uint8 array (height, width, 3) as PIL RGB."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        kind = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"An image must be a PIL picture or a uint8 array (height, width, 3), not {kind}.")
    return Image.fromarray(image)


def _planes(mask: np.ndarray, ignore: np.ndarray | None, height: int, width: int) -> Float[Tensor, "2 height width"]:
    """Mask and ignored pixels, resized bilinearly to (height, width)."""
    rest = np.zeros_like(mask, dtype=np.float32) if ignore is None else np.asarray(ignore, dtype=np.float32)
    planes = torch.from_numpy(np.stack([np.asarray(mask, dtype=np.float32), rest]))
    if planes.shape[-2:] != (height, width):
        planes = F.interpolate(planes[None], size=(height, width), mode="bilinear", antialias=True)[0]
        planes = planes.clamp(0, 1)
        # The sums above give 0.9999999 well inside an object, but the losses ask for exact zeros and ones off the edge:
        # values that 8 bits would not tell from them become them.
        planes[planes < 1 / 510] = 0
        planes[planes > 1 - 1 / 510] = 1
    return planes


def _same_size(picture: Image.Image, mask: np.ndarray, ignore: np.ndarray | None) -> None:
    for name, plane in (("mask", mask), ("ignored region", ignore)):
        if plane is not None and plane.shape != (picture.height, picture.width):
            size = f"{plane.shape[-1]} x {plane.shape[0]}"
            raise UserError(
                f"The {name} is {size} pixels, its picture {picture.width} x {picture.height}: they must agree."
            )


def _middle(size: int, crop: int) -> int:
    """Where a centred crop begins; negative where the picture is smaller than the crop."""
    return round((size - crop) / 2) if size >= crop else -((crop - size) // 2)


def _crop(picture: Image.Image, left: int, top: int, width: int, height: int, fill: tuple[int, ...]) -> Image.Image:
    if left >= 0 and top >= 0:
        return picture.crop((left, top, left + width, top + height))
    framed = Image.new("RGB", (width, height), fill)
    framed.paste(picture, (-left, -top))
    return framed
