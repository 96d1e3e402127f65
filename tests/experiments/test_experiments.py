"""The experiment on the built-in benchmark: the rule for the rate, merging over seeds, cells that are done once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from relevit.data.builtin import digits as bench
from relevit.errors import UserError
from relevit.experiments import automatic, builtin, grid
from relevit.experiments.records import write_record
from relevit.models.loading import load
from relevit.training.learning_rate import choose_rate
from relevit.training.loop import FinetuneResult


def trial(accuracy: float, loss: float) -> dict[str, float]:
    return {"accuracy": accuracy, "classification_loss": loss}


def test_the_rate_is_the_highest_that_the_rule_allows() -> None:
    start = trial(90.0, 0.2)
    trials = {1e-5: trial(90.0, 0.19), 3e-5: trial(87.5, 0.2), 1e-4: trial(87.4, 0.1), 3e-4: trial(95.0, 0.21)}
    assert choose_rate(start, trials) == 3e-5
    assert choose_rate(start, {3e-4: trial(95.0, 0.2), **{k: v for k, v in trials.items() if k < 1e-4}}) == 3e-4
    rising = {1e-5: trial(90.0, 0.21), 3e-5: trial(88.0, 0.3), 1e-4: trial(87.0, 0.3)}
    assert choose_rate(start, rising) == 3e-5
    assert choose_rate(start, {1e-4: trial(10.0, 0.1), 1e-5: trial(10.0, 0.1)}) == 1e-5


def test_figures_are_merged_leaf_by_leaf() -> None:
    def found(a: float, b: float) -> dict:
        def leaf(x: float) -> dict:
            return {"mean": x, "low": 0.0, "high": 0.0}

        return {"location": {"all": leaf(a), "rest": leaf(b)}, "foreground_share": leaf(a + b)}

    merged = grid._merged([found(1.0, 2.0), found(3.0, 10.0)])
    assert merged["location"]["all"]["mean"] == 2
    assert merged["location"]["rest"]["mean"] == 6
    assert merged["foreground_share"]["mean"] == 8


def test_cells_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    cell = grid._cell("relevance", 3, 1, 1e-4, False)
    write_record(tmp_path, grid._job(cell), {}, 0.0, {"result": {**cell, "figures": "from before"}})
    said: list[str] = []
    assert grid.run_cells([cell], tmp_path, say=said.append)[0]["figures"] == "from before"
    assert said == []
    jobs = {
        grid._job(grid._cell(m, n, s, lr, t)).key
        for m in builtin.METHODS
        for n in (3, 20)
        for s in (0, 100)
        for lr, t in ((1e-5, True), (1e-4, True), (1e-4, False))
    }
    assert len(jobs) == 4 * 2 * (2 + 2)  # trials by rate, cells by seed


def test_a_cell_that_fails_is_told_after_the_others(tmp_path: Path) -> None:
    good, bad = grid._cell("original", 0, 100, 0.0, True), grid._cell("no_such_method", 1, 0, 1e-4, True)
    with pytest.raises(UserError, match=r"no_such_method-1-rate-0\.0001 failed: unknown method"):
        grid.run_cells([bad, good], tmp_path, 1, say=lambda _: None)
    said: list[str] = []
    assert grid.run_cells([good], tmp_path, say=said.append)[0]["figures"]["accuracy"] == 99.0 and said == []


class Reader(torch.nn.Module):
    """Says the class of a picture from the colour of its first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(50.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = ((x[:, 0, 0, 0] + 1) * 127.5).round().long()
        return torch.nn.functional.one_hot(found, 20).float() * self.scale


def test_measuring_compares_predictions_with_labels_in_order() -> None:
    images = np.zeros((7, bench.SIZE, bench.SIZE, 3), np.uint8)
    images[:, 0, 0, 0] = [3, 1, 4, 1, 5, 9, 2]
    labels = np.array([3, 1, 4, 0, 5, 9, 6])
    masks = np.zeros((7, bench.SIZE, bench.SIZE), np.float32)
    pictures = bench.Pictures(images, masks, labels, np.arange(7), labels)
    found = builtin.measure(Reader(), pictures)
    assert found.predicted.tolist() == [3, 1, 4, 1, 5, 9, 2]
    assert found.hits.tolist() == [True, True, True, False, True, True, False]
    assert (found.confidence > 0.99).all()


def test_overlap_is_intersection_over_union() -> None:
    masks, exact = np.zeros((2, 3, 5, 7), bool)
    masks[0, :2, :3], exact[0, 1:3, 1:5] = True, True  # 6 and 8 pixels, 2 in common
    exact[1, 0, 0] = True
    assert automatic.overlap(masks, exact).tolist() == [2 / 12, 0.0, 1.0]


def test_automatic_masks_need_pictures_alone_and_lie_on_objects() -> None:
    model, _ = load("builtin")
    pictures = bench.validation_samples(2).subset(np.arange(0, 20, 3))
    found = automatic.with_automatic_masks(model, pictures)
    blind = bench.Pictures(
        pictures.images, np.zeros_like(pictures.masks), 0 * pictures.labels, pictures.objects, pictures.backgrounds
    )
    again = automatic.with_automatic_masks(model, blind)
    assert np.array_equal(found.pictures.masks, again.pictures.masks)
    assert np.array_equal(found.pictures.labels, pictures.labels[found.found])
    assert set(np.unique(found.pictures.masks)) == {0.0, 1.0}
    inside = found.pictures.masks.astype(bool)
    exact = pictures.masks[found.found] >= 0.5
    assert np.array_equal(found.iou[found.found], automatic.overlap(inside, exact))
    assert found.iou.mean() > automatic.overlap(~inside, exact).mean()  # not the background


def test_a_cell_with_automatic_masks_trains_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def record(model: torch.nn.Module, samples: object, out: None, **options: object) -> FinetuneResult:
        given.update(options, s=samples)
        return FinetuneResult(model, {}, None, None)

    monkeypatch.setattr(builtin, "finetune", record)
    model, _ = load("builtin")
    (name, method), *_ = builtin.AUTOMATIC.items()
    builtin.fine_tune(model, name, 1, 3, 1e-4)
    expected = automatic.with_automatic_masks(model, bench.training_samples(1, 3)).pictures
    samples = given["s"]
    assert isinstance(samples, bench.Pictures) and given["method"] == method
    assert np.array_equal(samples.masks, expected.masks) and np.array_equal(samples.images, expected.images)
    builtin.fine_tune(model, method, 1, 3, 1e-4)
    exact = given["s"]
    assert isinstance(exact, bench.Pictures) and np.array_equal(exact.masks, bench.training_samples(1, 3).masks)
