"""The table of benchmarks. A new one is a file with a function `sets`, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from relevit.data.benchmarks import imagenet_a, imagenet_r, imagenet_sketch, imagenet_v2
from relevit.data.benchmarks.image_set import Open
from relevit.errors import UserError

PROTOCOLS = ("standard", "paper")


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is found and opened.

    Attributes:
        folders: the usual names of its folder, letters and digits only, in small letters.
        sets: (folder, protocol) -> its sets by name, one or several, each as a function that opens it. Looks at the layout, quickly;
            raises UserError that says why the folder is none.
    """

    folders: tuple[str, ...]
    sets: Callable[[Path, str], dict[str, Open]]


BENCHMARKS: dict[str, Benchmark] = {
    "imagenet-v2": Benchmark(
        ("imagenetv2", "imagenetv2matchedfrequency", "imagenetv2matchedfrequencyformatval", "matchedfrequency"),
        imagenet_v2.sets,
    ),
    "imagenet-v2-threshold-0.7": Benchmark(
        ("imagenetv2threshold07", "imagenetv2threshold07formatval", "threshold07"),
        partial(imagenet_v2.sets, name="imagenet-v2-threshold-0.7"),
    ),
    "imagenet-v2-top-images": Benchmark(
        ("imagenetv2topimages", "imagenetv2topimagesformatval", "topimages"),
        partial(imagenet_v2.sets, name="imagenet-v2-top-images"),
    ),
    "imagenet-a": Benchmark(("imageneta",), imagenet_a.sets),
    "imagenet-r": Benchmark(("imagenetr", "imagenetrendition", "imagenetrenditions"), imagenet_r.sets),
    "imagenet-sketch": Benchmark(("imagenetsketch", "sketch"), imagenet_sketch.sets),
}


def check_protocol(protocol: str) -> None:
    """Raises UserError for a protocol that does not exist."""
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
