"""ImageNet-Sketch: drawings of all 1,000 classes (Wang et al., NeurIPS 2019). Both protocols are the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from relevit.data.benchmarks.class_folders import Open
from relevit.data.benchmarks.wnid_folders import find_wnid_folders, wnid_set

NAME = "imagenet-sketch"


def sets(root: Path, protocol: str) -> dict[str, Open]:
    """The one set of a folder `<wnid>/<image>`. Raises UserError that says why the folder is none."""
    return {NAME: partial(wnid_set, NAME, find_wnid_folders(root))}
