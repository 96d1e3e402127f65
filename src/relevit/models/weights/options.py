"""What a user may say about a file of weights, and how it is written into a model's name: `ARCHITECTURE@FILE?weights=ema&mean=0.5,0.5,0.5`.

The command line has an option for each (`relevit.cli`), and puts them into the name, so that a model's name tells all there is to
know of it, wherever it goes. Class names and templates are said of models of images and texts in the same way:
`open_clip:ViT-B-32/openai?class_names=FILE&templates=FILE`. Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from relevit.errors import ArgumentError, UserError

ENDINGS = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin", ".ckpt")  # of files of weights
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
WORDS = ("class_names", "templates")  # what is said of models of images and texts
HELP = {
    "weights": "of a file with several sets of weights, which: ema, model, or the set's name; by default what timm would evaluate",
    "class_names": "a file of the classes' names in their order (JSON, or text with a name on each line), or the folder of class folders that the model was trained with; of a model of images and texts, the classes that it is to tell apart",
    "templates": "of a model of images and texts: a file of sentences with {} where the class goes, one a line; or plain, which is 'a photo of a {}.'; by default open_clip's for ImageNet",
    "mean": "mean of each channel in the model's training, from 0 to 1",
    "std": "standard deviation of each channel in the model's training, from 0 to 1",
    "image_size": "side of the model's input in pixels",
    "resize": "short side in pixels to which a picture is resized before the crop",
    "interpolation": f"filter with which pictures are resized: {', '.join(INTERPOLATIONS)}",
}


@dataclass(frozen=True)
class FileOptions:
    """What a user says about a file of weights; None for what the file, or timm's config of the architecture, is to tell."""

    weights: str | None = None
    class_names: str | None = None
    templates: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    resize: int | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and len(value) != 3:
                raise ArgumentError(name, f"must be three numbers, not {len(value)}")
        if self.std is not None and not all(value > 0 for value in self.std):
            raise ArgumentError("std", "must be above 0")
        for name in ("image_size", "resize"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ArgumentError(name, f"must be at least 1, not {getattr(self, name)}")
        if self.interpolation is not None and self.interpolation not in INTERPOLATIONS:
            raise ArgumentError(
                "interpolation", f"must be one of {', '.join(INTERPOLATIONS)}, not {self.interpolation}"
            )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> FileOptions:
        """From values, or texts of them, by name. Raises ArgumentError for a name or a value that is none."""
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                raise ArgumentError(name, f"is not said of a file of weights: choose from {', '.join(sorted(known))}")
            if value is None:
                continue
            try:
                if name in ("mean", "std"):
                    numbers = value.split(",") if isinstance(value, str) else value
                    values[name] = tuple(float(number) for number in numbers)
                else:
                    values[name] = int(value) if name in ("image_size", "resize") else str(value)
            except (TypeError, ValueError) as error:
                raise ArgumentError(name, f"has no valid value: {value!r}") from error
        return cls(**values)

    def told(self) -> dict[str, Any]:
        """What is said, by name."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) is not None
        }

    def text(self) -> str:
        """As it is written behind a file's name; empty where nothing is said."""
        parts = [
            f"{name}={','.join(f'{number:g}' for number in value) if isinstance(value, tuple) else value}"
            for name, value in self.told().items()
        ]
        return "?" + "&".join(parts) if parts else ""


def split_options(text: str | os.PathLike[str]) -> tuple[str, FileOptions]:
    """A file's or model's name, and what is said behind it; the whole is the name where there is a file or folder of it."""
    text = os.fspath(text)
    name, mark, told = text.rpartition("?")
    if not mark or "=" not in told or Path(text).exists():
        return text, FileOptions()
    pairs = [part.partition("=") for part in told.split("&")]
    try:
        return name, FileOptions.of({key: value for key, _, value in pairs})
    except ArgumentError as error:
        raise UserError(f"{text}: {error}") from error


def with_options(name: Any, options: FileOptions) -> Any:
    """A file's name with what is said about it, beside what it says already."""
    plain, before = split_options(name)
    return plain + FileOptions(**{**before.told(), **options.told()}).text()
