"""Rows of pictures for the page: the image, the original's map and the fine-tuned model's, with both answers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from relevit.data.builtin.digits import CLASSES, SIZE, test_set
from relevit.experiments.filled import Picture
from relevit.report.pictures import overlay
from relevit.report.results import readable

_CAPTIONS = {
    "corrected": "wrong before, right after",
    "unchanged": "the same answer before and after",
    "ruined": "right before, wrong after",
}


def drawn(name: str, kind: str, chosen: Sequence[Mapping[str, Any]]) -> Picture:
    """A PNG of the pictures of a kind (measured.pictures), side by side."""
    shown = test_set(name, "test", 1)
    figure = Figure(figsize=(1.9 * len(chosen), 5.6), dpi=100, layout="constrained", facecolor="white")
    grid = figure.subplots(3, len(chosen), squeeze=False)
    for column, one in enumerate(chosen):
        image = shown.images[one["number"]]
        maps = [
            np.frombuffer(bytes.fromhex(text), np.uint8).reshape(SIZE, SIZE).astype(np.float32) / 255
            for text in one["maps"]
        ]
        (before, sure), (after, sure_after) = one["before"], one["after"]
        titles = (
            f"true: {CLASSES[shown.labels[one['number']]]}",
            f"before: {CLASSES[before]} ({sure:.0%})",
            f"after: {CLASSES[after]} ({sure_after:.0%})",
        )
        for axes, title, picture in zip(
            grid[:, column], titles, (image, overlay(image, maps[0]), overlay(image, maps[1])), strict=True
        ):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(title, fontsize=9, parse_math=False)
            axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return Picture(f"{readable(name).capitalize()}, {kind}: {_CAPTIONS[kind]}", buffer.getvalue())
