"""A measurement of one model on one set, in memory."""

from typing import Any

from relevit.evaluation import measurements
from relevit.evaluation.measured import Measured


def measure(
    test: str,
    model: Any,
    view: Any,
    data: Any,
    *,
    train: Any = None,
    batch_size: Any = None,
    workers: int = 0,
    **options: Any,
) -> Measured:
    """The result of the test of that name with its options."""
    how: dict[str, Any] = {"train": train, "batch_size": batch_size, "workers": workers, "options": options}
    return measurements.measure(test, {"model": (model, view)}, data, **how)["model"]
