"""Insertion and deletion: curves against a direct loop in double precision, areas against scikit-learn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import auc
from torch import nn

import measuring
import pixel_model
import relevit.explainers
from advances import advances
from image_sets import image_set
from pixel_model import HEIGHT, MEAN, STD, VIEW, WIDTH, Linear, contribution
from relevit.data.sample import Sample
from relevit.errors import UserError
from relevit.evaluation.maps.insertion_deletion import InsertionDeletion
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurements import MEASUREMENTS
from relevit.explainers import Explainer
from relevit.statistics.weighted import differences


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(relevit.explainers.EXPLAINERS, "stub", Explainer(contribution, "of a linear model"))


def samples(count: int = 11) -> list[Sample]:
    return pixel_model.samples(count)


def measure(data: Any, model: nn.Module | None = None, **options: Any) -> Measured:
    given = {"explainer": "stub", "random": "pixels", "batch_size": 4, "steps": 6, "canvas": "mean"} | options
    return measuring.measure("insertion_deletion", model or Linear(scale=0.1), VIEW, data, **given)


def areas(result: Measured, curve: str) -> np.ndarray:
    return InsertionDeletion(steps=result.settings["steps"]).areas(result.rows, curve)


def curve(result: Measured, name: str) -> np.ndarray:
    """The mean of the set."""
    return result.column(name).mean(axis=0)


def direct(sample: Sample, target: int | None, steps: int) -> tuple[list[float], list[float], list[float]]:
    """Shares, insertion into the mean colour, deletion to black: one picture, one step at a time."""
    weight = Linear(scale=0.1).weight.detach().numpy()
    mean, std = (np.array(each)[:, None, None] for each in (MEAN, STD))
    picture = (np.asarray(sample.image).transpose(2, 0, 1) / 255 - mean) / std

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        logits = (weight * pixels).sum(axis=(1, 2, 3))
        return np.exp(logits) / np.exp(logits).sum()

    target = int(probabilities(picture).argmax()) if target is None else target
    order = np.argsort(-(weight[target] * picture).sum(axis=0).ravel())
    black = (0 - mean) / std + np.zeros_like(picture)
    shares, inserted, deleted = [], [], []
    for step in range(steps + 1):
        first = np.zeros(HEIGHT * WIDTH, bool)
        first[order[: step * HEIGHT * WIDTH // steps]] = True
        first = first.reshape(HEIGHT, WIDTH)
        shares.append(first.mean())
        inserted.append(probabilities(np.where(first, picture, 0.0))[target])
        deleted.append(probabilities(np.where(first, black, picture))[target])
    return shares, inserted, deleted


@pytest.mark.parametrize("steps", [1, 6, 35])  # 35 pixels: 6 steps are not all alike
@pytest.mark.parametrize("target", ["predicted", "label"])
def test_curves_against_a_direct_loop(steps: int, target: str) -> None:
    data = samples()
    result = measure(data, steps=steps, target=target)
    found = [direct(sample, sample.label if target == "label" else None, steps) for sample in data]
    assert InsertionDeletion(steps=steps).shares(result.rows) == pytest.approx(found[0][0])
    for place, name in ((1, "insertion"), (2, "deletion")):
        expected = [auc(each[0], each[place]) for each in found]
        assert areas(result, name) == pytest.approx(expected, abs=1e-6)  # views are in single precision
        assert curve(result, name) == pytest.approx(np.mean([each[place] for each in found], axis=0), abs=1e-6)
    figures = dict(result)
    assert figures["contrast"] == pytest.approx(figures["insertion"] - figures["deletion"])
    if steps == 6 and target == "predicted":
        assert figures["insertion"] > figures["insertion_random"] + 5
        assert figures["deletion"] < figures["deletion_random"] - 5


def test_ends_of_the_curves() -> None:
    """Nothing in is the canvas, all in the picture; nothing gone is the picture, all gone the fill."""
    data = samples(1)
    result = measure(data, fill=0.25, canvas=0.75)
    model = Linear(scale=0.1)
    pictures = [np.asarray(data[0].image)] + [np.full((HEIGHT, WIDTH, 3), grey, np.float64) for grey in (0.25, 0.75)]
    views = [
        (torch.tensor(p / 255 if p.dtype == np.uint8 else p).permute(2, 0, 1) - VIEW.mean) / VIEW.std for p in pictures
    ]
    whole, fill, canvas = (
        model(view[None]).softmax(dim=1)[0, int(result.column("followed")[0])].item() for view in views
    )
    for name in ("", "_random"):
        assert curve(result, f"insertion{name}")[[0, -1]] == pytest.approx([canvas, whole], abs=1e-6)
        assert curve(result, f"deletion{name}")[[0, -1]] == pytest.approx([whole, fill], abs=1e-6)
    assert len({round(each, 3) for each in (whole, fill, canvas)}) == 3


def test_batches_change_nothing() -> None:
    results = [measure(samples(), batch_size=size) for size in (1, 3, 100)]
    for other in results[1:]:
        for name in InsertionDeletion().curves:
            assert areas(other, name) == pytest.approx(areas(results[0], name), abs=1e-9)


def test_images_without_a_label_are_left_out() -> None:
    data = [sample._replace(label=-1) if number == 4 else sample for number, sample in enumerate(samples())]
    result = measure(data, target="label", batch_size=1)
    assert [fault.name for fault in result.left_out] == ["p4"] and "p4" not in result.names and len(result.names) == 10
    whole = measure(samples(), target="label")
    assert areas(result, "deletion") == pytest.approx(np.delete(areas(whole, "deletion"), 4))
    assert areas(result, "deletion_random") == pytest.approx(np.delete(areas(whole, "deletion_random"), 4))
    assert len(measure(data).names) == 11
    with pytest.raises(UserError, match="no image has a class that is known"):
        measure([sample._replace(label=-1) for sample in samples()], target="label")


def test_candidates_share_the_probability() -> None:
    two = image_set(samples(), [(1,)] * len(samples()), [1, 3])
    result = measure(two, target="label")
    views = torch.stack([VIEW(np.asarray(sample.image)) for sample in samples()])
    expected = Linear(scale=0.1)(views)[:, [1, 3]].softmax(dim=1)[:, 0].mean().item()
    assert curve(result, "deletion")[0] == pytest.approx(expected, abs=1e-9)
    shares = Linear(scale=0.1)(views)[:, [1, 3]].softmax(dim=1)  # the predicted class is one of the two
    result = measure(two, target="predicted")
    assert result.column("followed").tolist() == [(1, 3)[place] for place in shares.argmax(dim=1).tolist()]
    assert curve(result, "deletion")[0] == pytest.approx(shares.amax(dim=1).mean().item(), abs=1e-9)


def test_json_and_differences() -> None:
    first, second = measure(samples()), measure(samples(), Linear(1, 0.1))
    content = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert content["figures"]["deletion"] == pytest.approx(100 * areas(first, "deletion").mean(), abs=1e-5)
    assert content["per_image"]["followed"] == first.column("followed").tolist() and len(content["shares"]) == 7
    apart = differences(second, first)
    assert apart["insertion"].value == pytest.approx(dict(second)["insertion"] - dict(first)["insertion"])


def test_model_is_as_before_and_progress_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model, done = Linear(scale=0.1).train(), advances(monkeypatch)
    measure(samples(), model)
    assert model.training and model.weight.requires_grad and sum(done) == 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "mine"}, "target must be predicted or label"),
        ({"steps": 0}, "steps must be a whole number from 1"),
        ({"steps": 2.5}, "steps must be a whole number from 1"),
        ({"canvas": "fog"}, "canvas must be black, mean, blur"),
        ({"fill": -1}, "fill must be black, mean, blur"),
        ({"explainer": "gea"}, "unknown explainer 'gea'"),
        ({"random": "no"}, "random must be one of"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure(samples(), **options)


def test_in_the_table() -> None:
    row = MEASUREMENTS["insertion_deletion"]
    assert row is InsertionDeletion and row.needs == "images"
