"""ImageNet-C: the validation images with 15 corruptions in 5 severities (Hendrycks & Dietterich, ICLR 2019).

Layout: <corruption>/<severity>/<wnid>/<image>, also inside noise/, blur/, weather/, digital/ and extra/, as its archives unpack. Each
corruption and severity is a set of its own, imagenet-c/fog/3. The images are stored at 224 pixels; they take the same view as every other
set, where the published evaluation takes them as they are. Both protocols are the same.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from relevit.data.benchmarks.class_folders import Open
from relevit.data.benchmarks.wnid_folders import find_wnid_folders, wnid_set
from relevit.data.listing import subfolders
from relevit.errors import UserError

NAME = "imagenet-c"
SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
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
