"""The perturbation test: answers against a direct loop, areas against scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.metrics import auc
from torch import Tensor

import measuring
import pixel_model
import relevit.explainers
from advances import advances
from image_sets import image_set
from pixel_model import HEIGHT, VIEW, WIDTH, Linear, contribution
from relevit.data.benchmarks import class_folders
from relevit.data.sample import Sample
from relevit.errors import UserError
from relevit.evaluation.maps.perturbation import SHARES, Perturbation
from relevit.evaluation.maps.removal import random_ranks
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurements import MEASUREMENTS, options_of
from relevit.explainers import Explainer
from relevit.statistics.weighted import intervals


def rounded(model: Any, images: Tensor, target: Tensor | None, *, second_order: bool = False) -> tuple[Tensor, Tensor]:
    """What each pixel adds, rounded so that there are many ties."""
    logits, added = contribution(model, images, target)
    return logits, (added * 2).round() / 2


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(relevit.explainers.EXPLAINERS, "stub", Explainer(rounded, "of a linear model"))


def samples(count: int = 13) -> list[Sample]:
    return pixel_model.samples(count)


def measure(data: Any, **options: Any) -> Measured:
    given = {"explainer": "stub", "random": "pixels", "batch_size": 4} | options
    return measuring.measure("perturbation", Linear(), VIEW, data, **given)


def predictions(result: Measured) -> dict[str, np.ndarray]:
    """By order the class that the model names at each share."""
    return {order: result.column(order) for order in Perturbation().orders if order in result.rows.column_names}


def hits(result: Measured, order: str, reference: str = "label") -> np.ndarray:
    return Perturbation().hits(result.rows, order, reference)


def areas(result: Measured, order: str, reference: str = "label") -> np.ndarray:
    return Perturbation().areas(result.rows, order, reference)


def direct(model: Linear, sample: Sample, target: int, positive: bool, share: float) -> int:
    """One picture, one share: pixels put into order by a plain sort, set to 0 before normalisation."""
    raw = np.asarray(sample.image, dtype=np.float64) / 255  # (height, width, 3)
    mean, std = np.array([0.4, 0.5, 0.7]), np.array([0.2, 0.5, 0.3])
    weight = model.weight.detach().numpy()  # (5, 3, height, width)
    added = ((raw - mean) / std * weight[target].transpose(1, 2, 0)).sum(axis=2)
    relevance = np.round(added * 2) / 2
    places = [(row, column) for row in range(HEIGHT) for column in range(WIDTH)]
    places.sort(key=lambda place: -relevance[place] if positive else relevance[place])  # stable: ties by index
    for place in places[: int(share * 100) * HEIGHT * WIDTH // 100]:
        raw[place] = 0.0
    logits = ((raw - mean) / std).transpose(2, 0, 1)[None] * weight
    return int(logits.sum(axis=(1, 2, 3)).argmax())


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_answers_against_a_direct_loop(batch_size: int) -> None:
    data, model = samples(), Linear()
    result = measure(data, batch_size=batch_size)
    original = [direct(model, sample, 0, True, 0.0) for sample in data]
    assert result.column("original").tolist() == original
    assert len(set(original)) > 2 and original != [sample.label for sample in data]
    for target in ("predicted", "label"):
        for sign in ("positive", "negative"):
            expected = [
                [
                    direct(
                        model, sample, own if target == "predicted" else sample.label, sign == "positive", percent / 100
                    )
                    for percent in range(10, 100, 10)
                ]
                for sample, own in zip(data, original, strict=True)
            ]
            assert result.column(f"{sign}_{target}").tolist() == expected
    # the orders differ, so that no two of them could stand for one another
    every = [tuple(map(tuple, named)) for named in predictions(result).values()]
    assert len(set(every)) == 5


def test_hits_and_areas_against_scikit_learn() -> None:
    data = samples()
    result = measure(data)
    labels = np.array([sample.label for sample in data])
    for order, named in predictions(result).items():
        for reference, right in (("label", labels), ("prediction", result.column("original"))):
            right_now = named == right[:, None]
            assert (hits(result, order, reference) == right_now).all()
            area = auc(np.array(SHARES), right_now.mean(axis=0)) / 0.8
            kind = "auc" if reference == "label" else "agreement"
            assert dict(result)[f"{kind}_{order}"] == pytest.approx(100 * area, abs=1e-9)
    figures = dict(result)
    assert figures["accuracy"] == pytest.approx(100 * (result.column("original") == labels).mean())
    for kind in ("auc", "agreement"):
        for target in ("predicted", "label"):
            contrast = figures[f"{kind}_negative_{target}"] - figures[f"{kind}_positive_{target}"]
            assert figures[f"{kind}_contrast_{target}"] == pytest.approx(contrast)
    # what adds most to the predicted logit goes first: the answer must change sooner than in the other order
    assert figures["agreement_contrast_predicted"] > 10


def test_area_by_hand() -> None:
    """The ends count half: hits at 0.1 and 0.5 of nine give (1/2 + 1) / 8."""
    named = np.zeros((1, 9), np.int32)
    named[0, [0, 4]] = 2
    table = pa.table({"answers": [[1, 2]], "original": [2], "random": named.tolist()})
    assert Perturbation().areas(table, "random").tolist() == pytest.approx([1.5 / 8])
    table = pa.table({"answers": [[2]], "original": [2], "random": named[:, [0, 1, 4]].tolist()})
    uneven = Perturbation(shares=(0.1, 0.2, 0.6)).areas(table, "random")
    assert uneven.tolist() == pytest.approx([(0.1 / 2 + 0.4 / 2) / 0.5])


def test_fill_reaches_the_model() -> None:
    data = samples()
    found = {fill: measure(data, fill=fill).column("positive_predicted").tolist() for fill in ("black", "mean", 1.0)}
    assert found["black"] != found["mean"] != found[1.0]


def test_random_order_depends_on_the_seed_and_the_image_alone() -> None:
    images = torch.randn(4, 3, HEIGHT, WIDTH)
    ranks = random_ranks(Linear(), images, [5, 6, 7, 8], "pixels", 1)
    assert torch.equal(random_ranks(Linear(), images[2:3], [7], "pixels", 1)[0], ranks[2])
    assert not torch.equal(random_ranks(Linear(), images[2:3], [7], "pixels", 2)[0], ranks[2])
    assert (
        all(sorted(row) == list(range(35)) for row in ranks.tolist()) and len({tuple(r) for r in ranks.tolist()}) == 4
    )
    results = [measure(samples(), batch_size=size).column("random").tolist() for size in (1, 5, 13)]
    assert results[0] == results[1] == results[2] != measure(samples(), seed=1).column("random").tolist()


def test_several_right_classes_and_candidates() -> None:
    data = samples()
    right = [(number % 5, (number + 2) % 5) for number in range(len(data))]
    result = measure(image_set(data, right, groups=["a", "b"] * 7))
    assert result.names[3] == "key 3" and result.groups[3] == "b"
    named = result.column("positive_label")
    expected = [[float(each in right[image]) for each in row] for image, row in enumerate(named.tolist())]
    assert hits(result, "positive_label").tolist() == expected
    # the map of the right class is the first one's
    first = measure([sample._replace(label=right[i][0]) for i, sample in enumerate(data)])
    assert (first.column("positive_label") == named).all()
    shut = measure(image_set(data, right, [1, 4]))
    assert {int(each) for named in predictions(shut).values() for each in named.ravel()} == {1, 4}
    assert set(shut.column("original").tolist()) == {1, 4}


def test_an_image_whose_class_the_model_lacks_is_a_miss() -> None:
    data = samples()
    right = [(sample.label,) for sample in data]
    lacking = [() if number % 3 == 0 else own for number, own in enumerate(right)]
    whole, some = measure(image_set(data, right)), measure(image_set(data, lacking))
    missed = np.arange(len(data)) % 3 == 0
    expected = np.where(missed, 0, areas(whole, "positive_predicted"))
    assert areas(whole, "positive_predicted")[missed].any()
    assert areas(some, "positive_predicted").tolist() == expected.tolist()
    named = [
        not gone and right[i] == (said,)
        for i, (gone, said) in enumerate(zip(missed, whole.column("original"), strict=True))
    ]
    assert dict(some)["accuracy"] == pytest.approx(100 * np.mean(named))


def test_images_without_a_label_count_for_the_agreement_alone() -> None:
    data = samples()
    part = [sample._replace(label=-1 if number % 3 == 0 else sample.label) for number, sample in enumerate(data)]
    whole, some = measure(data), measure(part)
    chosen = np.array([number % 3 != 0 for number in range(len(data))])
    area = areas(whole, "negative_predicted")[chosen].mean()
    assert dict(some)["auc_negative_predicted"] == pytest.approx(100 * area)
    assert dict(some)["agreement_negative_predicted"] == dict(whole)["agreement_negative_predicted"]
    none = measure([sample._replace(label=-1) for sample in data])
    assert not any(name.startswith("auc") or name == "accuracy" for name, _ in none)
    json.dumps(none.to_dict(), allow_nan=False)


def test_json_and_intervals() -> None:
    result = measure(samples())
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["settings"] == {"explainer": "stub", "fill": "black", "random": "pixels", "seed": 0}
    assert content["figures"] == {name: pytest.approx(value, abs=1e-5) for name, value in result}
    curve = content["curves"]["auc_positive_predicted"]
    assert curve["value"] == pytest.approx((100 * hits(result, "positive_predicted").mean(axis=0)).tolist(), abs=1e-3)
    assert all(
        low <= value <= high for low, value, high in zip(curve["low"], curve["value"], curve["high"], strict=True)
    )
    ends = intervals(result)
    for name, value in result:
        assert ends[name].low <= value <= ends[name].high and ends[name].low < ends[name].high
    half = result.only(np.array([1, 4, 6]))
    assert half.names == ["p1", "p4", "p6"]
    assert dict(half)["agreement_random"] == pytest.approx(
        100 * areas(result, "random", "prediction")[[1, 4, 6]].mean()
    )


def test_one_target_alone_and_its_order() -> None:
    both = measure(samples())
    alone = measure(samples(), targets=["label"], random="none")
    assert list(predictions(alone)) == ["positive_label", "negative_label"]
    assert (alone.column("negative_label") == both.column("negative_label")).all()


def test_model_is_as_before_and_progress_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model, done = Linear().train(), advances(monkeypatch)
    measuring.measure("perturbation", model, VIEW, samples(), explainer="stub", random="none", batch_size=5)
    assert (
        model.training
        and model.weight.requires_grad
        and model.weight.grad is None
        and sum(done) == 13 == len(samples())
    )


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    for name in ("0", "4"):
        (tmp_path / name).mkdir()
        for number, sample in enumerate(samples(3)):
            Image.fromarray(np.asarray(sample.image)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "4" / "1.png").write_bytes(b"broken")
    result = measure(class_folders(tmp_path))
    assert [fault.name for fault in result.left_out] == ["4/1.png"] and "4/1.png" in result.left_out[0].reason
    assert result.names == ["0/0.png", "0/1.png", "0/2.png", "4/0.png", "4/2.png"] and result.column("answers")[3] == (
        4,
    )
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="none of the 6 images could be read"):
        measure(class_folders(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fill": "white"}, "fill must be black, mean, blur or a number"),
        ({"fill": 1.5}, "fill must be"),
        ({"fill": float("nan")}, "fill must be"),
        ({"explainer": "gea"}, "unknown explainer 'gea'"),
        ({"targets": ["mine"]}, "targets must be one or both"),
        ({"targets": []}, "targets must be one or both"),
        ({"shares": [0.5]}, "shares must be two or more"),
        ({"shares": [0.5, 0.1]}, "shares must be two or more"),
        ({"shares": [0.5, 1.1]}, "shares must be two or more"),
        ({"random": "yes"}, "random must be one of patches, pixels, none"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure(samples(), **options)


def test_bad_data_are_refused() -> None:
    with pytest.raises(UserError, match="holds no images"):
        measure([])
    with pytest.raises(UserError, match="p0 has the label 9, but the model knows the classes 0 to 4"):
        measure([sample._replace(label=9) for sample in samples()])
    with pytest.raises(UserError, match="needs the view's mean and std"):
        measuring.measure("perturbation", Linear(), lambda picture: VIEW(picture), samples(), explainer="stub")


def test_maps_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Any, images: Tensor, target: Any, *, second_order: bool = False) -> tuple[Tensor, Tensor]:
        return model(images), torch.full(images[:, 0].shape, torch.nan)

    monkeypatch.setitem(relevit.explainers.EXPLAINERS, "broken", Explainer(broken, "of nothing"))
    with pytest.raises(UserError, match="maps of broken are not finite"):
        measure(samples(), explainer="broken")


def test_in_the_table() -> None:
    row = MEASUREMENTS["perturbation"]
    assert row is Perturbation and row.needs == "images" and {"explainer", "fill"} <= set(options_of(row))
