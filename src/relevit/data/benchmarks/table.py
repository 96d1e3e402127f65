"""The table of benchmarks. A new one is a file with a function `sets`, and a line here; or an entry point of another distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from relevit.data.benchmarks import (
    backgrounds_challenge,
    imagenet,
    imagenet_a,
    imagenet_c,
    imagenet_r,
    imagenet_real,
    imagenet_sketch,
    imagenet_v2,
    objectnet,
    si_score,
)
from relevit.data.benchmarks.class_folders import Open
from relevit.errors import UserError
from relevit.extensions import Table

PROTOCOLS = ("standard", "paper")


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is found and opened.

    Attributes:
        folders: the usual names of its folder, letters and digits only, in small letters.
        sets: (folder, protocol) -> its sets by name, one or several, each as a function that opens it. Looks at the layout, quickly;
            raises UserError that says why the folder is none.
        generic: names that folders of other data may have, too: one that is none is passed over without a word.
        confirm: looks closer at a folder of a generic name; raises UserError where it is none.
        complete: the names of all sets, where there are several.
    """

    folders: tuple[str, ...]
    sets: Callable[[Path, str], dict[str, Open]]
    generic: tuple[str, ...] = ()
    confirm: Callable[[Path], None] | None = None
    complete: tuple[str, ...] = ()


_VALIDATION = (
    "imagenet",
    "imagenet1k",
    "ilsvrc2012",
    "imagenet2012",
    "ilsvrc",
    "imagenetval",
    "ilsvrc2012val",
    "ilsvrc2012imgval",
)


def _v2(variant: str) -> tuple[str, ...]:
    return f"imagenetv2{variant}formatval", f"imagenetv2{variant}"


def _si_score(part: str, *others: str) -> Benchmark:
    names = tuple(name for each in (part, *others) for name in (f"object{each}", f"siscore{each}"))
    return Benchmark(names, partial(si_score.sets, name=f"si-score-{part}"), generic=(part, *others))


BENCHMARKS = Table[Benchmark](
    "benchmarks",
    {
        "imagenet": Benchmark(_VALIDATION, imagenet.sets, generic=imagenet.GENERIC, confirm=imagenet.confirm),
        "imagenet-real": Benchmark(_VALIDATION, imagenet_real.sets, generic=imagenet.GENERIC, confirm=imagenet.confirm),
        "imagenet-v2": Benchmark(
            (*_v2("matchedfrequency"), "imagenetv2"), imagenet_v2.sets, generic=("matchedfrequency",)
        ),
        "imagenet-v2-threshold-0.7": Benchmark(
            _v2("threshold07"), partial(imagenet_v2.sets, name="imagenet-v2-threshold-0.7"), generic=("threshold07",)
        ),
        "imagenet-v2-top-images": Benchmark(
            _v2("topimages"), partial(imagenet_v2.sets, name="imagenet-v2-top-images"), generic=("topimages",)
        ),
        "imagenet-a": Benchmark(("imageneta",), imagenet_a.sets),
        "imagenet-r": Benchmark(("imagenetr", "imagenetrendition"), imagenet_r.sets),
        "imagenet-sketch": Benchmark(("imagenetsketch",), imagenet_sketch.sets, generic=("sketch",)),
        "imagenet-c": Benchmark(("imagenetc",), imagenet_c.sets, complete=imagenet_c.SETS),
        "objectnet": Benchmark(("objectnet", "objectnet10"), objectnet.sets),
        "si-score-location": _si_score("location"),
        "si-score-rotation": _si_score("rotation"),
        "si-score-size": _si_score("size", "area"),
        "backgrounds-challenge": Benchmark(
            ("backgroundschallenge", "bgchallenge", "imagenet9", "in9"),
            backgrounds_challenge.sets,
            complete=tuple(f"{backgrounds_challenge.NAME}/{name}" for name in backgrounds_challenge.SETS),
        ),
    },
)


def check_protocol(protocol: str) -> None:
    """Raises UserError for a protocol that does not exist."""
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
