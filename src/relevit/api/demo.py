"""`relevit demo`."""

from __future__ import annotations

from relevit.api import types
from relevit.api.types import public


@public
def demo(*, full: bool = False, out: types.Output | None = None, seed: types.Index = 0) -> None:
    """Fine-tune and measure a small ViT on the built-in benchmark, offline; ends with a table and a report.

    Running it again does not overwrite an earlier result.

    Args:
        full: runs the whole grid of methods, seeds and numbers of samples (up to two hours on two cores).
        out: the folder for the results; by default runs/demo, or runs/demo-full.
        seed: of the samples that are drawn and of the training.
    """
    from relevit.demonstration.demo import demo as run_demo

    run_demo(out=out, full=full, seed=seed)
