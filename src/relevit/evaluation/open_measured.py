"""What `relevit measure` reads: the data of a test, by a path or a name."""

from __future__ import annotations

from typing import Any

from relevit.data.open import one_of, sets
from relevit.data.sets import ImageSet
from relevit.errors import UserError


def open_data(
    row: Any,
    source: str,
    *,
    masks: str | None = None,
    ignore: str | None = None,
    train: str | None = None,
    protocol: str = "standard",
    benchmark: str | None = None,
) -> tuple[ImageSet, dict[str, Any]]:
    """What `relevit measure` reads: the data of a test, and the options that come of its other inputs.

    source, train: what `relevit.data.open.one_of` takes, with `protocol` and `benchmark`. masks, ignore: folders of masks
    and of pixels to ignore. Raises UserError for an input that is missing, or that the test does not take.
    """
    if train is not None and row.needs != "train_and_test":
        raise UserError("this test trains on nothing: leave out --train")
    if row.needs == "masks":
        options: dict[str, Any] = {"ignore": ignore, "masked": True, "protocol": protocol}
        if benchmark is not None and len(sets(source, masks, **options)) == 1:
            raise UserError("this test needs images with masks, which benchmarks lack: leave out --benchmark")
        return one_of(source, benchmark, masks, **options)[1], {}
    if masks is not None or ignore is not None:
        raise UserError(f"this test takes no masks: leave out {'--masks' if masks is not None else '--ignore'}")
    tested = one_of(source, benchmark, protocol=protocol)[1]
    if row.needs == "images":
        return tested, {}
    if train is None:
        raise UserError("this test needs class folders to train on: give --train DIR")
    return tested, {"train": one_of(train, protocol=protocol)[1]}
