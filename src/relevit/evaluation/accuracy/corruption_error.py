"""The mean corruption error on ImageNet-C (Hendrycks & Dietterich, ICLR 2019): errors relative to AlexNet's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relevit.data.benchmarks.table import CORRUPTED, CORRUPTIONS, IMAGENET_C, SEVERITIES
from relevit.errors import UserError

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
    absent = {c: [s for s in SEVERITIES if f"{IMAGENET_C}/{c}/{s}" not in errors] for c in CORRUPTIONS}
    absent = {corruption: missing for corruption, missing in absent.items() if missing}
    if absent:
        told = "; ".join(f"{c}: severity {', '.join(map(str, missing))}" for c, missing in absent.items())
        raise UserError(
            f"the mean corruption error needs all 15 corruptions of {IMAGENET_C} in 5 severities, there is no result of {told}"
        )
    for name in CORRUPTED:
        if not 0 <= errors[name] <= 100:
            raise UserError(f"the error on {name} must lie in 0 to 100 percent, not {errors[name]}")
    by_corruption = {
        corruption: 100.0
        * sum(errors[f"{IMAGENET_C}/{corruption}/{s}"] for s in SEVERITIES)
        / (len(SEVERITIES) * alexnet)
        for corruption, alexnet in ALEXNET.items()
    }
    return CorruptionErrors(by_corruption, sum(by_corruption.values()) / len(by_corruption))
