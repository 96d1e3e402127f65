"""ImageNet-C: the validation images with 15 corruptions in 5 severities, and the mean corruption error (Hendrycks & Dietterich, ICLR 2019).

Layout: <corruption>/<severity>/<wnid>/<image>, also inside noise/, blur/, weather/, digital/ and extra/, as its archives unpack. Each
corruption and severity is a set of its own, imagenet-c/fog/3. The images are stored at 224 pixels; they take the same view as every other
set, where the published evaluation takes them as they are. Both protocols are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from relevit.data.benchmarks.class_folders import Open
from relevit.data.benchmarks.wnid_folders import find_wnid_folders, wnid_set
from relevit.data.listing import subfolders
from relevit.errors import UserError

NAME = "imagenet-c"
SEVERITIES = (1, 2, 3, 4, 5)
# AlexNet's error in percent, the mean over the severities
ALEXNET = {
    "gaussian_noise": 88.6428,
    "shot_noise": 89.4468,
    "impulse_noise": 92.2640,
    "defocus_blur": 81.9880,
    "glass_blur": 82.6268,
    "motion_blur": 78.5948,
    "zoom_blur": 79.8360,
    "snow": 86.6816,
    "frost": 82.6572,
    "fog": 81.9324,
    "brightness": 56.4592,
    "contrast": 85.3204,
    "elastic_transform": 64.6056,
    "pixelate": 71.7840,
    "jpeg_compression": 60.6500,
}
CORRUPTIONS = tuple(ALEXNET)
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")  # not part of the mean corruption error
SETS = tuple(f"{NAME}/{corruption}/{severity}" for corruption in CORRUPTIONS for severity in SEVERITIES)
_PLACES = ("", "noise", "blur", "weather", "digital", "extra")


def sets(root: Path, protocol: str) -> dict[str, Open]:
    """The sets of a folder, by corruption, then severity; absent ones are left out.

    Raises UserError where none is there, or one has other folders than ImageNet's classes.
    """
    found: dict[str, Open] = {}
    for corruption in (*CORRUPTIONS, *EXTRA):
        for severity in SEVERITIES:
            places = (root / place / corruption / str(severity) for place in _PLACES)
            folder = next((place for place in places if subfolders(place)), None)
            if folder is not None:
                name = f"{NAME}/{corruption}/{severity}"
                found[name] = partial(wnid_set, name, find_wnid_folders(folder))
    if not found:
        raise UserError(f"{root} holds none of the folders <corruption>/<severity>, such as {CORRUPTIONS[0]}/1")
    return found


@dataclass(frozen=True)
class CorruptionErrors:
    """Corruption errors in percent of AlexNet's.

    Attributes:
        by_corruption: of each of the 15 corruptions.
        mean: the mean corruption error (mCE).
    """

    by_corruption: dict[str, float]
    mean: float

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield "mean_corruption_error", self.mean
        yield from ((f"corruption_error/{name}", value) for name, value in self.by_corruption.items())

    def to_dict(self) -> dict:
        """Ready for JSON."""
        return {"mean_corruption_error": self.mean, "corruption_errors": self.by_corruption}


def mean_corruption_error(errors: Mapping[str, float]) -> CorruptionErrors:
    """The corruption errors of a model: its error, summed over the five severities, in percent of AlexNet's; and their mean.

    `errors`: the top-1 error in percent (100 - R@1) by the name of the set, imagenet-c/<corruption>/<severity>; other names are ignored.
    Raises UserError that names what is missing where any of the 15 corruptions lacks a severity, and for an error outside 0 to 100.
    """
    absent = {c: [s for s in SEVERITIES if f"{NAME}/{c}/{s}" not in errors] for c in CORRUPTIONS}
    absent = {corruption: missing for corruption, missing in absent.items() if missing}
    if absent:
        told = "; ".join(f"{c}: severity {', '.join(map(str, missing))}" for c, missing in absent.items())
        raise UserError(
            f"the mean corruption error needs all 15 corruptions of {NAME} in 5 severities, there is no result of {told}"
        )
    for name in SETS:
        if not 0 <= errors[name] <= 100:
            raise UserError(f"the error on {name} must lie in 0 to 100 percent, not {errors[name]}")
    by_corruption = {
        corruption: 100.0 * sum(errors[f"{NAME}/{corruption}/{s}"] for s in SEVERITIES) / (len(SEVERITIES) * alexnet)
        for corruption, alexnet in ALEXNET.items()
    }
    return CorruptionErrors(by_corruption, sum(by_corruption.values()) / len(by_corruption))
