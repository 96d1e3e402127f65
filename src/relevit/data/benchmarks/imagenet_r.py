"""ImageNet-R: renditions (art, toys, sketches and so on) of 200 classes (Hendrycks et al., ICCV 2021).

`standard`: the prediction is taken among the set's own 200 classes. `paper`: among all 1,000.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from relevit.data.benchmarks.class_folders import Open
from relevit.data.benchmarks.imagenet_classes import classes_of
from relevit.data.benchmarks.wnid_folders import find_wnid_folders, wnid_set

NAME = "imagenet-r"


def sets(root: Path, protocol: str) -> dict[str, Open]:
    """The one set of a folder `<wnid>/<image>`. Raises UserError that says why the folder is none."""
    classes = classes_of("r")
    folder = find_wnid_folders(root, classes)
    return {NAME: partial(wnid_set, NAME, folder, classes, classes if protocol == "standard" else None)}
