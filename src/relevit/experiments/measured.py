"""Measurements of the models that cells left behind, as jobs: tests of maps and features by name, models between the original
and the fine-tuned one, and the pictures of Figures 1 to 3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relevit.errors import UserError

if TYPE_CHECKING:
    from torch import nn

KINDS = ("corrected", "unchanged", "ruined")


def model_of(name: str | None, folder: Path) -> nn.Module:
    """The model that the cell `name` left in the output folder; the original for None."""
    from relevit.models.loading import is_checkpoint, load

    if name is None:
        return load("builtin")[0]
    place = folder / "models" / name
    if not is_checkpoint(place):
        raise UserError(f"{place} is gone: remove {folder / 'jobs' / name}.json to have it made again")
    return load(str(place))[0]


def measure(
    test: str,
    data: str,
    name: str | None,
    limit: int,
    folder: Path,
    train: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """A test of relevit.evaluation.measurements, by name, of the model of a cell on `limit` pictures of a set (drawn once): its
    figures by name."""
    from relevit.data.sets import of_dataset
    from relevit.evaluation.measurements import measure as run
    from relevit.evaluation.measurements import measurement
    from relevit.evaluation.open_measured import open_data
    from relevit.models.loading import load

    row = measurement(test, options)
    pictures, more = open_data(row, data, train=train)
    model, view = model_of(name, folder), load("builtin")[1]
    result = run(test, model, view, of_dataset(pictures).limited(limit), **{**(options or {}), **more})
    return {str(figure): float(value) for figure, value in result if isinstance(value, int | float)}


def interpolated(name: str, share: float, views: int, folder: Path) -> dict[str, Any]:
    """The hits (cells.measured) of the model whose weights are the original's, moved by `share` of the way to those of a cell
    (WiSE-FT, Wortsman et al. 2022)."""
    import torch

    from relevit.experiments.cells import measured

    model, other = model_of(None, folder), model_of(name, folder)
    far = dict(other.named_parameters())
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.lerp_(far[key], share)
    return measured(model, views)


def pictures(name: str, test_set_name: str, each: int, folder: Path) -> dict[str, Any]:
    """Pictures that a cell's model corrects, leaves and ruins, in an order shuffled once, no class twice: for each its number
    in the set, both answers (class, probability), and both maps of the class that is answered, as bytes in hexadecimal."""
    import numpy as np

    from relevit.data.builtin.digits import test_set
    from relevit.experiments.builtin import maps_of, measure

    before, after = model_of(None, folder), model_of(name, folder)
    shown = test_set(test_set_name, "test", 1)
    first, second = measure(before, shown), measure(after, shown)
    members = {
        "corrected": ~first.hits & second.hits,
        "unchanged": first.predicted == second.predicted,
        "ruined": first.hits & ~second.hits,
    }
    order, chosen = np.random.default_rng(0).permutation(len(shown)), dict[str, list[dict[str, Any]]]()
    for kind in KINDS:
        numbers: list[int] = []
        for i in order[members[kind][order]]:
            if len(numbers) < each and shown.labels[i] not in shown.labels[numbers]:
                numbers.append(int(i))
        some = shown.subset(np.array(numbers, int))
        maps: list[Any] = [maps_of(model, some).numpy() if numbers else [] for model in (before, after)]
        chosen[kind] = [
            {
                "number": i,
                "before": [int(first.predicted[i]), float(first.confidence[i])],
                "after": [int(second.predicted[i]), float(second.confidence[i])],
                "maps": [np.round(255 * own[k]).astype(np.uint8).tobytes().hex() for own in maps],
            }
            for k, i in enumerate(numbers)
        ]
    return {"set": test_set_name, "pictures": chosen}
