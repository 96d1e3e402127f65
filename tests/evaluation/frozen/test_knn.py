"""k-NN: against a direct loop in double precision and scikit-learn; ties, names of classes, sets that overlap."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

import relevit.evaluation.frozen.knn as module
from advances import advances
from families import build
from measuring import measure
from pixel_model import plain_view
from relevit.data.benchmarks import class_folders
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.evaluation.frozen.features import before_head
from relevit.evaluation.frozen.knn import NearestNeighbours, first_of, nearest, votes
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurements import MEASUREMENTS

VIEW = plain_view(5, 7, (0.5,) * 3, (0.5,) * 3)


def knn(model: nn.Module, view: Any, test: Any, **options: Any) -> Measured:
    return measure("knn", model, view, test, **options)


def features(model: nn.Module, images: Tensor, names: list[str]) -> Tensor:
    return F.normalize(before_head(model, images, names), dim=1)


def hit(result: Measured, figure: str = "r1") -> np.ndarray:
    return result.values[figure] == 100


class Backbone(nn.Module):
    """Features are a fixed projection of the pixels; the head would answer something else."""

    num_classes = 3

    def __init__(self, channels: int = 11) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(105, channels, generator=torch.Generator().manual_seed(1)))

    def forward_features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        return tokens @ self.weight if pre_logits else tokens[:, :3]


def folder(root: Path, counts: dict[str, int], seed: int) -> ImageSet:
    """Noise around a picture of each class, much noise, so that neighbours are of several classes."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        middle = np.random.default_rng(sum(map(ord, name))).integers(60, 196, (5, 7, 3))
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture = np.clip(middle + rng.normal(0, 110, (5, 7, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(root / name / f"{seed}_{number}.png")
    return class_folders(root)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[ImageSet, ImageSet]:
    names = ["ape", "bee", "cat", "dog", "eel", "fox", "gnu"]
    test = folder(tmp_path / "test", {name: 5 + number for number, name in enumerate(names[1:])}, 1)
    train = folder(tmp_path / "train", {name: 7 + number for number, name in enumerate(names)}, 2)
    return test, train


def direct(test: ImageSet, train: ImageSet, k: int, temperature: float) -> tuple[list[str], list[bool], list[bool]]:
    """One test image at a time, with dictionaries, in double precision."""
    weight = Backbone().weight.detach().double().numpy()

    def feature(path: Path) -> np.ndarray:
        value = (np.asarray(Image.open(path), dtype=np.float64) / 255 - 0.5) / 0.5
        found = value.transpose(2, 0, 1).ravel() @ weight
        return found / math.sqrt((found**2).sum())

    bank = [(feature(path), path.parent.name) for path in train.paths]
    first, hit1, hit5 = [], [], []
    for path in test.paths:
        own = feature(path)
        near = sorted(((float(own @ other), name) for other, name in bank), key=lambda pair: -pair[0])[:k]
        tally: dict[str, float] = defaultdict(float)
        for similarity, name in near:
            tally[name] += math.exp(similarity / temperature)
        ranking = sorted(tally, key=lambda name: (-tally[name], name))
        first.append(ranking[0])
        hit1.append(path.parent.name == ranking[0])
        hit5.append(path.parent.name in ranking[:5])
    return first, hit1, hit5


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.07), (1, 0.07), (13, 0.5), (70, 0.002)])
def test_against_a_direct_loop(sets: tuple[ImageSet, ImageSet], k: int, temperature: float) -> None:
    test, train = sets
    result = knn(Backbone(), VIEW, test, train=train, k=k, temperature=temperature, batch_size=9)
    first, hit1, hit5 = direct(test, train, k, temperature)
    assert result.column("predicted").tolist() == first
    assert hit(result).tolist() == hit1 and hit(result, "r5").tolist() == hit5
    if k == 20:
        assert 1 / 7 < np.mean(hit1) < np.mean(hit5) < 1  # better than chance, and neither is trivial
        # the votes' weights matter
        assert knn(Backbone(), VIEW, test, train=train, k=20, temperature=100.0).column("predicted").tolist() != first


def test_against_scikit_learn(sets: tuple[ImageSet, ImageSet]) -> None:
    test, train = sets
    model = Backbone()

    def found(data: ImageSet) -> tuple[np.ndarray, list[str]]:
        images = torch.stack([VIEW(data[number].image) for number in range(len(data))])
        return features(model, images, []).detach().double().numpy(), [path.parent.name for path in data.paths]

    bank, labels = found(train)
    queries, right = found(test)
    classifier = KNeighborsClassifier(
        n_neighbors=20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(bank, labels)
    result = knn(model, VIEW, test, train=train)
    assert result.column("predicted").tolist() == classifier.predict(queries).tolist()
    assert dict(result)["r1"] == pytest.approx(100 * classifier.score(queries, right))


@pytest.mark.parametrize("cells", [1, 30, 30_000])
def test_chunks_change_nothing(sets: tuple[ImageSet, ImageSet], cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    test, train = sets
    whole = knn(Backbone(), VIEW, test, train=train)
    monkeypatch.setattr(module, "_CELLS", cells)
    parts = knn(Backbone(), VIEW, test, train=train, batch_size=5)
    assert parts.rows["predicted"] == whole.rows["predicted"]
    assert (parts.values["r5"] == whole.values["r5"]).all()


@pytest.mark.parametrize("cells", [1, 1000, 10_000])
def test_nearest_with_ties_in_any_chunks(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small whole numbers, so that similarities are exact and many are equal: the earlier of them is nearer."""
    generator = torch.Generator().manual_seed(4)
    bank = torch.randint(-1, 2, (211, 3), generator=generator).double()
    queries = torch.randint(-1, 2, (17, 3), generator=generator).double()
    similarity = queries @ bank.T
    expected = [sorted(range(211), key=lambda place, row=row: -row[place])[:13] for row in similarity.tolist()]  # type: ignore[misc]
    monkeypatch.setattr(module, "_CELLS", cells)
    values, places = nearest(queries, bank, 13)
    assert places.tolist() == expected and torch.equal(values, similarity.gather(1, places))
    values, places = nearest(queries, bank[:5], 13)  # all, where there are fewer
    assert places.sort(dim=1).values.tolist() == [[0, 1, 2, 3, 4]] * 17 and values.shape == (17, 5)


def test_first_of() -> None:
    values = torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    best, places = first_of(values, 2)
    assert places.tolist() == [[1, 3], [0, 1]] and best.tolist() == [[3, 3], [5, 4]]
    assert first_of(values, 9)[1].tolist() == [[1, 3, 4, 2, 0], [0, 1, 2, 3, 4]]


def test_votes_by_hand() -> None:
    # class 2 is nearest, class 0 has two votes: they win at a high temperature, lose at a low one
    similarity = torch.tensor([[0.9, 0.8, 0.79]] * 2)
    neighbours = torch.tensor([[2, 0, 0]] * 2)
    hit1, hit5, first = votes(similarity, neighbours, torch.tensor([2, 6]), 7, 10.0)
    assert first.tolist() == [0, 0] and hit1.tolist() == [False, False]
    assert hit5.tolist() == [True, False]  # a class without a vote is no hit, though fewer than five classes have any
    assert votes(similarity, neighbours, torch.tensor([2, 0]), 7, 0.01)[0].tolist() == [True, False]
    # a temperature at which exp(similarity / temperature) overflows, and at which the farther votes vanish
    hit1, hit5, first = votes(similarity, neighbours, torch.tensor([2, 0]), 7, 1e-4)
    assert first.tolist() == [2, 2] and hit1.tolist() == [True, False] and hit5.tolist() == [True, True]
    # of equal votes the first class
    equal = votes(torch.full((1, 2), 0.5), torch.tensor([[4, 1]]), torch.tensor([1]), 7, 0.07)
    assert equal[2].tolist() == [1] and equal[0].tolist() == [True]
    missing = votes(torch.tensor([[0.5, -torch.inf]]), torch.tensor([[3, -1]]), torch.tensor([3]), 7, 0.07)
    assert missing[2].tolist() == [3] and missing[0].tolist() == [True]


def test_features_do_not_know_the_test_images(sets: tuple[ImageSet, ImageSet]) -> None:
    """Each test image alone gets the answer that it gets among the others: none of them is in the bank."""
    test, train = sets
    whole = knn(Backbone(), VIEW, test, train=train, k=1)
    assert hit(whole).mean() < 0.95  # were they in it, every image would be its own neighbour

    class One:
        def __init__(self, number: int) -> None:
            self.paths, self.groups = [test.paths[number]], [test.paths[number].parent.name]

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            return test[test.paths.index(self.paths[0])]

    alone = [
        knn(Backbone(), VIEW, One(number), train=train, k=1).column("predicted")[0] for number in range(0, len(test), 9)
    ]
    assert alone == whole.column("predicted")[::9].tolist()


def test_a_file_in_both_sets_is_refused(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    test, train = sets
    with pytest.raises(UserError, match=r"train/.*/.*\.png is in the test set and in the training set"):
        knn(Backbone(), VIEW, class_folders(tmp_path / "train"), train=train)
    with pytest.raises(UserError, match="the test set is the training set"):
        knn(Backbone(), VIEW, train, train=train)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "bee").symlink_to(tmp_path / "test" / "bee")
    with pytest.raises(UserError, match="is in the test set and in the training set"):
        knn(Backbone(), VIEW, Path(test.name) / ".." / "other", train=test)


def test_classes_are_matched_by_name(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    test, train = sets
    assert test.class_names[0] == "bee" and train.class_names[0] == "ape"  # so their numbers differ
    extra = folder(tmp_path / "more", {"bee": 2, "yak": 1, "zebu": 1}, 5)
    with pytest.raises(
        UserError, match=r"no images of 2 of the test set's classes \(yak, zebu\): name class folders alike"
    ):
        knn(Backbone(), VIEW, extra, train=train)


def test_model_is_as_before_progress_and_json(sets: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch) -> None:
    test, train = sets
    (Path(test.name) / "cat" / "1_0.png").write_bytes(b"broken")
    (Path(train.name) / "ape" / "2_3.png").write_bytes(b"broken")
    model, done = Backbone().train(), advances(monkeypatch)
    result = knn(model, VIEW, test.name, train=Path(train.name), batch_size=7)
    assert model.training and model.weight.grad is None and sum(done) == len(test) + len(train) and min(done) >= 0
    assert [fault.name for fault in result.left_out] == ["cat/1_0.png"] and len(result.names) == len(test) - 1
    assert [fault.name for fault in result.train_left_out or ()] == ["ape/2_3.png"]
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["settings"] == {"k": 20, "temperature": 0.07, "train_images": len(train) - 1, "train_classes": 7}
    assert content["per_image"]["predicted"] == result.column("predicted").tolist()
    assert content["figures"]["r1"] == pytest.approx(100 * hit(result).mean(), abs=1e-4)
    assert content["classes"]["cat"]["figures"]["r1"] == pytest.approx(
        100 * hit(result)[np.array(result.groups) == "cat"].mean(), abs=1e-4
    )
    right = [group == named for group, named in zip(result.groups, result.column("predicted"), strict=True)]
    assert hit(result).tolist() == right


@pytest.mark.parametrize("family", ["vit", "deit_distilled", "vit_mean", "siglip"])
def test_features_of_timm_models(family: str) -> None:
    """Those that the head sees: the head on them (not scaled) gives the logits."""
    model, images = build(family)
    seen = {}
    handle = model.head.register_forward_pre_hook(lambda _, given: seen.update(head=given[0]))
    with torch.no_grad():
        model(images)
        expected = seen["head"]
        if family == "deit_distilled":  # two heads, on a token each: their mean
            tokens = model.forward_features(images)
            expected = (tokens[:, 0] + tokens[:, 1]) / 2
        found = features(model, images, ["a", "b", "c"])
    handle.remove()
    assert torch.allclose(found, expected / expected.norm(dim=1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be a whole number from 1 to 70"),
        ({"k": 71}, "k must be a whole number from 1 to 70, the number of training images, not 71"),
        ({"temperature": 0}, "temperature must be a number above 0"),
        ({"temperature": math.nan}, "temperature must be a number above 0"),
    ],
)
def test_bad_options_are_refused(sets: tuple[ImageSet, ImageSet], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        knn(Backbone(), VIEW, sets[0], train=sets[1], **options)


def test_bad_models_and_sets_are_refused(sets: tuple[ImageSet, ImageSet]) -> None:
    test, train = sets
    with pytest.raises(UserError, match="Flatten has no forward_features"):
        knn(nn.Flatten(), VIEW, test, train=train)
    model = Backbone()
    with torch.no_grad():
        model.weight.fill_(torch.inf)
    with pytest.raises(UserError, match=r"features of bee/1_0\.png are not finite"):
        knn(model, VIEW, test, train=train)
    with pytest.raises(UserError, match="the training set names no classes"):
        knn(Backbone(), VIEW, test, train=[test[0]])
    row = MEASUREMENTS["knn"]
    assert row is NearestNeighbours and row.needs == "train_and_test"
