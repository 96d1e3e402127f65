"""The table of benchmarks. A new one is a row of class folders here, or a file with a function `sets` and a line here; or an entry
point of another distribution."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from relevit.data.benchmarks import imagenet, imagenet_real, objectnet
from relevit.data.benchmarks.class_folders import Open
from relevit.data.benchmarks.imagenet_classes import COUNT, classes_of
from relevit.data.benchmarks.imagenet_folders import INNER, Choice, ImageNetFolders, Naming, by_wnid
from relevit.data.listing import Paths
from relevit.data.reading import packaged
from relevit.errors import UserError
from relevit.extensions import Table

PROTOCOLS = ("standard", "paper")
IMAGENET_C, BACKGROUNDS_CHALLENGE = "imagenet-c", "backgrounds-challenge"
SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTIONS = tuple(
    "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog brightness contrast "
    "elastic_transform pixelate jpeg_compression".split()
)
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")  # not part of the mean corruption error
CORRUPTED = tuple(f"{IMAGENET_C}/{corruption}/{severity}" for corruption in CORRUPTIONS for severity in SEVERITIES)
BACKGROUNDS = ("original", "only_bg_b", "only_bg_t", "no_fg", "only_fg", "mixed_same", "mixed_rand", "mixed_next")
KINDS = ("dog", "bird", "wheeled vehicle", "reptile", "carnivore", "insect", "musical instrument", "primate", "fish")


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is found and opened.

    Attributes:
        folders: the usual names of its folder, letters and digits only, in small letters.
        sets: (folder, protocol) -> its sets by name, one or several, each as a function that opens it. Looks at the layout, quickly;
            raises UserError that says why the folder is none. Most are `ImageNetFolders`.
        generic: names that folders of other data may have, too: one that is none is passed over without a word.
        confirm: looks closer at a folder of a generic name; raises UserError where it is none.
        complete: the names of all sets, where there are several.
    """

    folders: tuple[str, ...]
    sets: Callable[[Path, str], dict[str, Open]]
    generic: tuple[str, ...] = ()
    confirm: Callable[[Path], None] | None = None
    complete: tuple[str, ...] = ()


def _validation(sets: Callable[[Path, str], dict[str, Open]]) -> Benchmark:
    names = ("imagenet", "imagenet1k", "ilsvrc2012", "imagenet2012", "ilsvrc")
    more = ("imagenetval", "ilsvrc2012val", "ilsvrc2012imgval")
    return Benchmark((*names, *more), sets, generic=("val", "validation"), confirm=imagenet.confirm)


def _subset(letter: str) -> ImageNetFolders:
    """A set whose own 200 classes compete."""
    classes = partial(classes_of, letter)
    return ImageNetFolders(f"imagenet-{letter}", lambda: by_wnid(classes()), competing=classes)


def _v2(variant: str, name: str, *more: str) -> Benchmark:
    """Folders are named by class index, as a number: sorted as text, "10" comes before "2", so the place of a folder is not its class."""

    def class_of(folder: str) -> Choice | None:
        return (int(folder),) if re.fullmatch(r"[0-9]{1,4}", folder) and int(folder) < COUNT else None

    naming = Naming(f"by class index, 0 to {COUNT - 1}", f"{COUNT:,}", class_of)
    names = (f"imagenetv2{variant}formatval", f"imagenetv2{variant}", *more)
    return Benchmark(names, ImageNetFolders(name, lambda: naming, [""]), generic=(variant,))


def _corrupted() -> Benchmark:
    """Its archives unpack into noise/, blur/ and so on."""
    above = ("", "noise/", "blur/", "weather/", "digital/", "extra/")
    parts = {
        f"{corruption}/{severity}": [f"{place}{corruption}/{severity}/{inner}" for place in above for inner in INNER]
        for corruption in (*CORRUPTIONS, *EXTRA)
        for severity in SEVERITIES
    }
    layout = f"<corruption>/<severity>, such as {CORRUPTIONS[0]}/1"
    return Benchmark(("imagenetc",), ImageNetFolders(IMAGENET_C, parts=parts, layout=layout), complete=CORRUPTED)


def _si_score(part: str, *others: str) -> Benchmark:
    names = tuple(name for each in (part, *others) for name in (f"object{each}", f"siscore{each}"))
    return Benchmark(names, ImageNetFolders(f"si-score-{part}", _si_score_naming, [""]), generic=(part, *others))


@cache
def _si_score_naming() -> Naming:
    def plain(name: str) -> str:
        return name.lower().replace("_", " ").strip()

    classes = {plain(name): (int(index),) for name, index in packaged("si_score_classes.json").items()}
    return Naming("by class, such as ambulance", str(len(classes)), lambda folder: classes.get(plain(folder)))


def _backgrounds() -> Benchmark:
    places = {
        name: [f"{root}{name}/{val}" for root in ("", "bg_challenge/") for val in ("val", "")] for name in BACKGROUNDS
    }
    sets = ImageNetFolders(
        BACKGROUNDS_CHALLENGE, _kind_naming, parts=places, layout=", ".join(BACKGROUNDS), objects=_objects
    )
    return Benchmark(("backgroundschallenge", "bgchallenge", "imagenet9", "in9"), sets, complete=sets.complete)


@cache
def classes_of_kind() -> tuple[Choice, ...]:
    """ImageNet's classes of each of the nine kinds, ascending."""
    kinds = {int(index): int(kind) for index, kind in packaged("in9_classes.json").items()}
    return tuple(
        tuple(sorted(index for index, kind in kinds.items() if kind == number)) for number in range(len(KINDS))
    )


def _kind_naming() -> Naming:
    def class_of(folder: str) -> Choice | None:
        match = re.fullmatch(r"0?(\d)(?:_(.*))?", folder)
        number = int(match[1]) if match else len(KINDS)
        said = (match[2] or "").replace("_", " ").strip().lower() if match else ""
        wrong = number >= len(KINDS) or (said in KINDS and KINDS.index(said) != number)
        return None if wrong else classes_of_kind()[number]

    return Naming("by kind, 00_dog to 08_fish", "nine", class_of)


def _objects(paths: Paths) -> list[str] | None:
    """What each image shows, from names fg_<image>_bg_<image>; None where they tell nothing."""
    found = [re.match(r"fg_(.+)_bg_", name.rpartition("/")[2]) for name in paths.names]
    return [match[1] for match in found if match] if all(found) else None


# Where no protocol is told of, both are the same, and all of ImageNet's classes compete.
BENCHMARKS = Table[Benchmark](
    "benchmarks",
    {
        "imagenet": _validation(imagenet.sets),
        "imagenet-real": _validation(imagenet_real.sets),
        # ImageNet's test set collected anew, in three variants (Recht et al., ICML 2019); the paper's is matched-frequency.
        "imagenet-v2": _v2("matchedfrequency", "imagenet-v2", "imagenetv2"),
        "imagenet-v2-threshold-0.7": _v2("threshold07", "imagenet-v2-threshold-0.7"),
        "imagenet-v2-top-images": _v2("topimages", "imagenet-v2-top-images"),
        # Photographs that mislead classifiers, 200 classes (Hendrycks et al., CVPR 2021). `standard`: the prediction is taken among
        # the set's own classes. `paper`: among all 1,000. So, too, ImageNet-R.
        "imagenet-a": Benchmark(("imageneta",), _subset("a")),
        # Renditions (art, toys, sketches and so on) of 200 classes (Hendrycks et al., ICCV 2021).
        "imagenet-r": Benchmark(("imagenetr", "imagenetrendition"), _subset("r")),
        # Drawings of all 1,000 classes (Wang et al., NeurIPS 2019).
        "imagenet-sketch": Benchmark(("imagenetsketch",), ImageNetFolders("imagenet-sketch"), generic=("sketch",)),
        # The validation images with 15 corruptions in 5 severities, <corruption>/<severity>/<wnid>/<image> (Hendrycks & Dietterich,
        # ICLR 2019), each a set of its own. They are stored at 224 pixels and take the same view as every other set, where the
        # published evaluation takes them as they are.
        IMAGENET_C: _corrupted(),
        "objectnet": Benchmark(("objectnet", "objectnet10"), objectnet.sets),
        # Objects pasted on other backgrounds at several locations, rotations and sizes (Djolonga et al., CVPR 2021):
        # object_location/<class name>/*.jpg and so on, names as in lists/si_score_classes.json; files beside the folders are ignored.
        "si-score-location": _si_score("location"),
        "si-score-rotation": _si_score("rotation"),
        "si-score-size": _si_score("size", "area"),
        # ImageNet-9: nine kinds of objects with their backgrounds kept, removed or swapped (Xiao et al., ICLR 2021), <set>/val/00_dog or
        # <set>/00_dog. As published, the prediction is taken among all 1,000 classes and is a hit where its class belongs to the image's
        # kind (lists/in9_classes.json); a class that belongs to none (-1) is a miss. Standard and paper are the same: restricting the
        # prediction to the classes of the nine kinds would make the sets easier than published. Top-5 is a hit where any of the five
        # classes belongs to the kind.
        BACKGROUNDS_CHALLENGE: _backgrounds(),
    },
)


def check_protocol(protocol: str) -> None:
    """Raises UserError for a protocol that does not exist."""
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
