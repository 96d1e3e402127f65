"""How experiments, columns and groups are called in tables."""

from __future__ import annotations

from relevit.experiments.paper import SEGMENTATION
from relevit.experiments.table import EXPERIMENTS
from relevit.report.words import readable

GROUPS = {"all": "", "set_a": "Classes of set A", "rest": "The other classes"}
_WRITTEN = {"objectnet": "ObjectNet", **SEGMENTATION, "r1": "R@1", "r5": "R@5"}


def title(name: str) -> str:
    """An experiment as the paper calls it."""
    where = EXPERIMENTS[name].where
    return where if where.startswith(("Table", "Figure", "Appendix")) else readable(name).capitalize()


def column(name: str) -> str:
    """The head of a column, which breaks at spaces alone: `imagenet-a` becomes ImageNet-A, `r1` R@1."""
    if name.startswith("imagenet"):
        first, _, rest = name.partition("-")
        first = first.replace("imagenet", "ImageNet")
        text = "-".join(filter(None, (first, rest if rest.startswith("v2") else rest.capitalize())))
    else:
        text = _WRITTEN.get(name, readable(name.replace("si-score-", "SI-Score ")))
    return text.replace("-", "\u2011")
