"""The experiment on the built-in benchmark: the rule for the rate, merging over seeds, cells that are done once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from relevit.data.builtin import digits as bench
from relevit.data.builtin.sets import of_pictures
from relevit.experiments.hits import first_answers, read_hits
from relevit.experiments.sources import builtin_work, work
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


class Reader(torch.nn.Module):
    """Says the class of a picture from the colour of its first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.num_classes = torch.nn.Parameter(torch.tensor(50.0)), 20

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = ((x[:, 0, 0, 0] + 1) * 127.5).round().long()
        return torch.nn.functional.one_hot(found, 20).float() * self.scale


def test_measuring_compares_predictions_with_labels_in_order(tmp_path: Path) -> None:
    images = np.zeros((7, bench.SIZE, bench.SIZE, 3), np.uint8)
    images[:, 0, 0, 0] = [3, 1, 4, 1, 5, 9, 2]
    labels = np.array([3, 1, 4, 0, 5, 9, 6])
    masks = np.zeros((7, bench.SIZE, bench.SIZE), np.float32)
    pictures = bench.Pictures(images, masks, labels, np.arange(7), labels, "location")
    found = work.evaluate((Reader(), load("builtin")[1]), {"a/b": of_pictures(pictures)}, "key", tmp_path, "standard")
    hits = read_hits(tmp_path, "key", "a/b")
    assert hits.hit1.tolist() == [True, True, True, False, True, True, False]
    assert (
        hits.groups.tolist() == [bench.CLASSES[label] for label in labels]
        and first_answers(hits).tolist() == labels.tolist()
    )
    assert found["a/b"]["images"] == 7 and found["a/b"]["r1"] == pytest.approx(500 / 7)
    logits = builtin_work.logits_of(Reader(), pictures)
    assert logits.argmax(1).tolist() == [3, 1, 4, 1, 5, 9, 2] and (logits.softmax(1).max(1).values > 0.99).all()


def test_overlap_is_intersection_over_union() -> None:
    masks, exact = np.zeros((2, 3, 5, 7), bool)
    masks[0, :2, :3], exact[0, 1:3, 1:5] = True, True  # 6 and 8 pixels, 2 in common
    exact[1, 0, 0] = True
    assert builtin_work.overlap(masks, exact).tolist() == [2 / 12, 0.0, 1.0]


def test_automatic_masks_need_pictures_alone_and_lie_on_objects() -> None:
    model, _ = load("builtin")
    pictures = bench.validation_samples(2).subset(np.arange(0, 20, 3))
    found = builtin_work.with_automatic_masks(model, pictures)
    blind = bench.Pictures(
        pictures.images, np.zeros_like(pictures.masks), 0 * pictures.labels, pictures.objects, pictures.backgrounds
    )
    again = builtin_work.with_automatic_masks(model, blind)
    assert np.array_equal(found.masks, again.masks)
    assert np.array_equal(found.labels, pictures.labels) and set(np.unique(found.masks)) == {0.0, 1.0}
    seen = builtin_work.has_object(found)
    inside, exact = found.masks[seen].astype(bool), pictures.masks[seen] >= 0.5
    overlap = builtin_work.overlap(found.masks.astype(bool), pictures.masks >= 0.5)
    assert np.array_equal(overlap[seen], builtin_work.overlap(inside, exact)) and not overlap[~seen].any()
    assert overlap.mean() > builtin_work.overlap(~inside, exact).mean()  # not the background
    told = builtin_work.mask_figures(model, pictures)
    assert told["iou"]["mean"] == pytest.approx(100 * overlap.mean()) and told["found"]["mean"] == 100 * seen.mean()


def test_a_cell_with_automatic_masks_trains_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def record(model: torch.nn.Module, samples: object, out: None, **options: object) -> FinetuneResult:
        given.update(options, s=samples)
        return FinetuneResult(model, {}, None, None)

    monkeypatch.setattr(builtin_work, "finetune", record)
    model, _ = load("builtin")
    builtin_work.train("relevance", 3, 1e-4, masks="automatic", per_class=1)
    masked = builtin_work.with_automatic_masks(model, bench.training_samples(1, 3))
    expected = masked.subset(np.flatnonzero(builtin_work.has_object(masked)))
    samples = given["s"]
    assert isinstance(samples, bench.Pictures) and given["method"] == "relevance"
    assert np.array_equal(samples.masks, expected.masks) and np.array_equal(samples.images, expected.images)
    builtin_work.train("relevance", 3, 1e-4, per_class=1)
    exact = given["s"]
    assert isinstance(exact, bench.Pictures) and np.array_equal(exact.masks, bench.training_samples(1, 3).masks)
