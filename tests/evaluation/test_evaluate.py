"""evaluation: the pass over the images against plain timm; answers, candidates, protocols, what is found before long work."""

import json
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from predicted import predicted
from relevit.data.benchmarks.class_folders import tree_set
from relevit.data.benchmarks.table import CORRUPTED as SETS
from relevit.data.classes import match_classes
from relevit.data.listing import Paths, Tree
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.evaluation import evaluate
from relevit.evaluation.accuracy.answers import first_five, hits
from relevit.evaluation.accuracy.class_sets import in_set
from relevit.evaluation.accuracy.predictions import Predictions
from relevit.evaluation.accuracy.report import summarise
from relevit.evaluation.batches import Framing, distinct
from relevit.evaluation.rows import Rows
from relevit.evaluation.shards import shard_ranges
from relevit.models.loading import data_config
from relevit.models.view import EvaluationView, evaluation_view

CONFIG = {"input_size": (3, 8, 8), "mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear", "crop_pct": 1.0}
VIEW = evaluation_view(CONFIG)


class Grey(nn.Module):
    """Answers with the class whose number is the mean grey, 0 to 255, divided by 10; then the next ones, the higher first."""

    def __init__(self, classes: int = 23) -> None:
        super().__init__()
        self.num_classes, self.seen = classes, 0
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        guess = (images.mean(dim=(1, 2, 3)) * 25.5).round()
        numbers = torch.arange(self.num_classes)
        return self.weight - (numbers - guess[:, None]).abs() + 0.01 * numbers


def save(path: Path, grey: int, size: tuple[int, int] = (11, 13)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey,) * 3).save(path)


def a_set(
    root: Path, greys: Sequence[int], answers: Sequence[tuple[int, ...]], candidates: list[int] | None = None
) -> ImageSet:
    paths = [root / f"{i:02d}.png" for i in range(len(greys))]
    for path, grey in zip(paths, greys, strict=True):
        save(path, grey)
    tree = Tree(["all"], Paths(root, [path.name for path in paths]), array("i", [0] * len(greys)))
    kinds = range(len(greys))
    return tree_set("mine", tree, lambda model, class_map: answers, kinds=kinds, competing=lambda model: candidates)


@pytest.fixture(scope="module")
def tiny() -> dict[str, nn.Module]:
    models = {}
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        models[name] = timm.create_model(
            "vit_tiny_patch16_224", img_size=24, patch_size=8, embed_dim=12, depth=2, num_heads=2, num_classes=7
        )
        with torch.no_grad():
            for parameter in models[name].parameters():
                parameter.copy_(torch.randn_like(parameter) * (0.5 if parameter.ndim >= 2 else 0.1))
            models[name].cls_token.zero_()  # so that the answer depends on the image
            models[name].pos_embed.zero_()
    return models


def test_first_five_against_sorting() -> None:
    logits = torch.randn(53, 17, generator=torch.Generator().manual_seed(0))
    top, confidence = first_five(logits)
    assert torch.equal(top.long(), logits.argsort(dim=1, descending=True)[:, :5])
    assert torch.equal(confidence, logits.softmax(1).max(1).values)


def test_first_five_of_ties_of_few_and_of_what_is_not_finite() -> None:
    top, confidence = first_five(
        torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [3.0, torch.nan, 0.0], [3.0, torch.inf, 0.0]])
    )
    assert top.tolist() == [[1, 2, 0, -1, -1], [0, 1, 2, -1, -1], [-1] * 5, [-1] * 5]
    assert confidence[1].item() == pytest.approx(1 / 3) and confidence[2:].isnan().all()


def test_a_logit_of_minus_infinity_is_a_class_never_named() -> None:
    inf, nan = torch.inf, torch.nan
    logits = torch.tensor(
        [
            [2.0, -inf, 1.0, -inf, 3.0, 0.0, -inf],  # 3 classes are shut by the model
            [-inf, -inf, -inf, 4.0, -inf, -inf, -inf],
            [-inf] * 7,
            [1.0, nan, 2.0, 3.0, 4.0, 5.0, 6.0],
            [1.0, 2.0, inf, 3.0, 4.0, 5.0, 6.0],
        ]
    )
    top, confidence = first_five(logits)
    assert top.tolist() == [[4, 0, 2, 5, -1], [3, -1, -1, -1, -1], *[[-1] * 5] * 3]
    share = np.exp(3) / (np.exp([2.0, 1.0, 3.0, 0.0]).sum())
    assert confidence[:2].tolist() == pytest.approx([share, 1.0]) and confidence[2:].isnan().all()
    # of the classes that do not compete, nothing matters
    top, confidence = first_five(logits, torch.tensor([0, 3, 6]))
    assert top.tolist() == [[0] + [-1] * 4, [3] + [-1] * 4, [-1] * 5, [6, 3, 0, -1, -1], [6, 3, 0, -1, -1]]
    assert confidence[3:].tolist() == pytest.approx([np.exp(6) / np.exp([1.0, 3.0, 6.0]).sum()] * 2)


def test_only_candidates_compete() -> None:
    logits = torch.tensor([[9.0, 1.0, 3.0, 8.0, 2.0]])
    top, confidence = first_five(logits, torch.tensor([1, 2, 4]))
    assert top.tolist() == [[2, 4, 1, -1, -1]]
    assert confidence.item() == pytest.approx(torch.tensor([1.0, 3.0, 2.0]).softmax(0)[1].item())


def test_any_answer_is_a_hit_and_none_is_a_miss() -> None:
    top = torch.tensor([[3, 1, 2, 0, 5]] * 5 + [[3, -1, -1, -1, -1]], dtype=torch.int32)
    found = hits(top, [(3,), (7, 3), (7, 5), (7,), (), (-1,)])
    assert found[0].tolist() == [True, True, False, False, False, False]
    assert found[1].tolist() == [True, True, True, False, False, True]


@pytest.mark.parametrize("length", [1, 63, 64, 65, 1024, 1025, 50_000, 1_281_167])
def test_shards_hold_each_image_once(length: int) -> None:
    shards = shard_ranges(length)
    assert [place for shard in shards for place in shard] == list(range(length))
    sizes = {len(shard) for shard in shards[:-1]}
    assert len(sizes) <= 1 and all(size in (64, 128, 256, 512, 1024, 2048) for size in sizes)


def test_predictions_are_those_of_a_plain_loop(tiny: dict[str, nn.Module], tmp_path: Path) -> None:
    rng, order = np.random.default_rng(0), []
    for label in range(7):
        for number in range(11):
            path = tmp_path / str(label) / f"{number:02d}.png"
            path.parent.mkdir(exist_ok=True)
            noise = rng.integers(0, 100, (int(rng.integers(20, 50)), int(rng.integers(20, 50)), 3))
            Image.fromarray((noise + rng.integers(0, 156, 3)).astype(np.uint8)).save(path)
            order.append((path, label))
    report = evaluate(tiny, {"mine": tmp_path}, batch_size=13)
    for name, net in tiny.items():
        net.eval()
        view = timm.data.create_transform(**data_config(net), is_training=False)
        with torch.no_grad():
            logits = torch.cat([net(view(Image.open(path))[None]) for path, _ in order])
        rows, labels = report.predictions["mine"][name], torch.tensor([label for _, label in order])
        assert rows.keys == [f"{path.parent.name}/{path.name}" for path, _ in order]
        assert np.array_equal(rows.top5, logits.topk(5).indices.numpy())
        np.testing.assert_allclose(rows.confidence, logits.softmax(1).max(1).values.numpy(), rtol=1e-5)
        assert np.array_equal(rows.hit1, (logits.argmax(1) == labels).numpy())
        assert np.array_equal(rows.hit5, (logits.topk(5).indices == labels[:, None]).any(1).numpy())
        assert rows.answers == [(label,) for _, label in order]
        assert report.accuracies["mine"][name].r1 == pytest.approx(100 * rows.hit1.mean())
    assert len(set(map(tuple, report.predictions["mine"]["first"].top5))) > 4
    change = report.comparisons["mine"]["second"]
    one, two = (report.predictions["mine"][name] for name in ("first", "second"))
    assert change.corrected == [key for key, a, b in zip(one.keys, one.hit1, two.hit1, strict=True) if b and not a]
    assert list(report.comparisons["mine"]) == ["second"]


def test_an_image_is_read_once_and_a_shared_view_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Data:
        read = 0

        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            self.read += 1
            return np.full((9, 9, 3), 10 * index, np.uint8), index

    calls = []
    plain = EvaluationView.__call__
    monkeypatch.setattr(EvaluationView, "__call__", lambda self, image: calls.append(self) or plain(self, image))
    same, other = evaluation_view(CONFIG), evaluation_view({**CONFIG, "std": (2.0,) * 3})
    data = Data()
    report = evaluate({"a": (Grey(), VIEW), "b": (Grey(), same), "c": (Grey(), other)}, {"x": data})
    assert data.read == 7 and len(calls) == 14
    assert report.accuracies["x"]["a"].r1 == report.accuracies["x"]["b"].r1 == 100
    assert report.accuracies["x"]["c"].r1 == pytest.approx(100 / 7)


def test_views_are_the_same_by_what_they_do() -> None:
    changes = [
        {},
        {"mean": (0.1,) * 3},
        {"std": (0.5,) * 3},
        {"crop_pct": 0.9},
        {"crop_mode": "squash"},
        {"interpolation": "bicubic"},
    ]
    views = [evaluation_view({**CONFIG, **change}) for change in changes]
    assert distinct([Framing(view) for view in [*views, evaluation_view(CONFIG)]])[1] == [0, 1, 2, 3, 4, 5, 0]


def test_several_answers_and_candidates(tmp_path: Path) -> None:
    data = a_set(tmp_path, [30, 30, 30, 50], [(3,), (9, 3), (9,), ()])
    report = evaluate((Grey(), VIEW), {"all": data})
    assert report.accuracy().hit1.tolist() == [True, True, False, False]
    # without 3 and 4 the grey 30 is answered with 2 (distance 1), then 5 and 1 (2), then 6 and 0
    data = a_set(tmp_path, [30, 30, 30], [(2,), (3,), (6, 2)], [0, 1, 2, 5, 6, 9])
    rows = evaluate((Grey(), VIEW), {"some": data}).predictions["some"]["model"]
    assert rows.hit1.tolist() == [True, False, True] and rows.hit5.tolist() == [True, False, True]
    assert rows.top5[0].tolist() == [2, 5, 1, 6, 0]
    logits = Grey()(torch.full((1, 3, 8, 8), 30 / 255))[0, [0, 1, 2, 5, 6, 9]]
    assert rows.confidence[0] == pytest.approx(logits.softmax(0)[2].item(), rel=1e-5)


def test_objects_widen_the_intervals(tmp_path: Path) -> None:
    greys, answers = [30, 50] * 10, [(3,)] * 20
    plain = a_set(tmp_path, greys, answers)
    known = replace(plain, objects=[f"object {i % 4}" for i in range(20)])
    report = evaluate((Grey(), VIEW), {"plain": plain, "known": known})
    widths = [np.diff(report.accuracy(benchmark=name).r1_interval.ends)[0] for name in ("plain", "known")]
    assert widths[1] > 1.5 * widths[0]
    assert report.predictions["known"]["model"].objects.tolist() == [f"object {i % 4}" for i in range(20)]


def test_a_stream_is_measured_by_one_pass() -> None:
    from relevit.data.sets import StreamSet

    def images() -> list[tuple[Image.Image, int]]:
        return [(Image.new("RGB", (9, 9), (10 * (i % 7),) * 3), i % 5) for i in range(23)]

    models = {"a": (Grey(), VIEW), "b": (Grey(), evaluation_view({**CONFIG, "std": (2.0,) * 3}))}
    report = evaluate(models, {"s": StreamSet("wds/mine", images, None)}, batch_size=3)
    rows = report.predictions["s"]["a"]
    assert rows.keys == [f"{i:09d}" for i in range(23)] and rows.answers == [(i % 5,) for i in range(23)]
    assert rows.hit1.tolist() == [i % 7 == i % 5 for i in range(23)] and list(rows.groups[:3]) == ["0", "1", "2"]
    with pytest.raises(UserError, match="no images"):
        evaluate((Grey(), VIEW), {"s": StreamSet("wds/none", lambda: [], None)})


def test_the_paper_protocol_replaces_every_view(tiny: dict[str, nn.Module], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "3").mkdir()
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 31, 3), np.uint8)).save(tmp_path / "3" / f"{number}.png")
    net = tiny["first"]
    paper = evaluation_view(data_config(net, "paper"))
    other = evaluation_view({**data_config(net), "mean": (0.1,) * 3, "crop_pct": 1.0})
    with torch.no_grad():
        expected = net.eval()(torch.stack([paper(Image.open(path)) for path in sorted((tmp_path / "3").iterdir())]))
    models = {"module": net, "with a view": (net, other)}
    report = evaluate(models, {"x": tmp_path}, protocol="paper")
    for name in models:
        np.testing.assert_allclose(
            report.predictions["x"][name].confidence, expected.softmax(1).max(1).values.numpy(), rtol=1e-5
        )
    standard = evaluate(models, {"x": tmp_path})
    assert (
        abs(standard.predictions["x"]["with a view"].confidence - report.predictions["x"]["module"].confidence).min()
        > 1e-4
    )
    assert report.protocol == "paper" and standard.protocol == "standard"
    with pytest.raises(UserError, match="transform"):
        evaluate(net, tmp_path, transform=other, protocol="paper")


def test_the_protocol_is_named_in_every_result(tmp_path: Path) -> None:
    save(tmp_path / "data" / "3" / "a.png", 30)
    report = evaluate((Grey(), VIEW), {"x": tmp_path / "data"}, out=tmp_path / "out")
    console = Console(width=200)
    with console.capture() as captured:
        console.print(report.table())
    assert "protocol: standard" in captured.get()
    for file in ("results.json", "config.json"):
        assert json.loads((tmp_path / "out" / file).read_text())["protocol"] == "standard"
    report.save(tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["protocol"] == "standard"


def test_an_image_is_of_set_a_by_its_own_class() -> None:
    """A wnid's class, whatever else is right (as in ImageNet-ReaL); the first right class where the name tells nothing."""
    groups = ["n01440764", "n01440764", "n01443537", "ray", "ray", "ball", "lost", "2"]
    answers = [(0, 1), (1,), (0, 1), (1, 6), (6, 1), (574,), (), (0,)]
    rows = predicted(np.zeros(8), groups, answers=answers)
    found = in_set(rows, ["ball"], [1, 2], match_classes(groups).classes)
    assert found.tolist() == [False, False, True, True, False, True, False, False]
    assert in_set(rows, ["n01440764"], [0]).tolist() == [True, True, True, False, False, False, False, True]
    assert in_set(rows, [], [2], match_classes(["2"]).classes).tolist() == [False] * 7 + [True]


def test_set_a_against_the_rest(tmp_path: Path) -> None:
    for name, greys in {"3": [30, 30, 50], "11": [110, 0], "5": [50]}.items():
        for number, grey in enumerate(greys):
            save(tmp_path / "data" / name / f"{number}.png", grey)
    (tmp_path / "a.txt").write_text("# trained on\n3\n5\n")
    split = "name,class,label,split\n3/0.png,3,3,training\n5/0.png,5,5,training\n11/0.png,11,11,validation\n"
    (tmp_path / "split.csv").write_text(split)
    for given in (["3", "5"], tmp_path / "a.txt", tmp_path / "split.csv"):
        report = evaluate((Grey(), VIEW), {"x": tmp_path / "data"}, set_a=given)
        assert len(report.set_a["x"]["model"]) == 4 and report.set_a["x"]["model"].r1 == 75
        assert len(report.rest["x"]["model"]) == 2 and report.rest["x"]["model"].r1 == 50
        figures = report.to_dict()["x"]["models"]["model"]
        assert figures["set_a"]["r1"] == 75 and figures["rest"]["r1"] == 50 and "ece" in figures
    by_answer = a_set(tmp_path / "set", [30, 110], [(3, 1), (11, 3)])  # folders are called otherwise
    report = evaluate((Grey(), VIEW), {"x": by_answer}, set_a=["3"])
    assert len(report.set_a["x"]["model"]) == 1 and report.set_a["x"]["model"].r1 == 100
    with pytest.raises(UserError, match="zebra"):
        evaluate((Grey(), VIEW), {"x": by_answer}, set_a=["3", "zebra"])
    (tmp_path / "none.txt").write_text("\n# nothing\n")
    with pytest.raises(UserError, match=r"none\.txt names no class"):
        evaluate((Grey(), VIEW), {"x": by_answer}, set_a=tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        evaluate((Grey(), VIEW), {"x": by_answer}, set_a=tmp_path / "gone.txt")


def test_the_mean_corruption_error_where_all_sets_are_there() -> None:
    def rows() -> Predictions:
        return predicted(np.arange(4) < 3)  # 25 % wrong

    every = {name: Rows({"net": rows}) for name in SETS}
    report = summarise(every, "standard")
    assert report.corruption["net"].by_corruption["fog"] == pytest.approx(100 * 25 / 81.9324)
    del every[SETS[7]]
    less = summarise(every, "standard")
    assert not less.corruption and SETS[7].split("/")[1] in less.notes["imagenet-c"]


def test_all_unfit_classes_are_named_before_anything_is_read(tmp_path: Path) -> None:
    save(tmp_path / "one" / "pear" / "a.png", 0)
    save(tmp_path / "one" / "apple" / "a.png", 0)
    save(tmp_path / "two" / "99" / "a.png", 0)
    net = Grey()
    with pytest.raises(UserError, match=r"(?s)m on one: .*apple.*pear") as stop:
        evaluate({"m": (net, VIEW)}, {"one": tmp_path / "one"}, out=tmp_path / "out")
    with pytest.raises(UserError, match=r"(?s)2 reasons.*m on one: .*apple.*m on two: .*class 99 is not among") as stop:
        evaluate({"m": (net, VIEW)}, {"one": tmp_path / "one", "two": tmp_path / "two"}, out=tmp_path / "out")
    assert net.seen == 0 and not (tmp_path / "out").exists() and "folder" in str(stop.value)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"protocol": "papers"}, "protocol must be one of standard, paper"),
        ({"format": "xlsx"}, "format"),
        ({"precision": "int8"}, "precision"),
        ({"batch_size": 0}, "batch_size"),
        ({"workers": -1}, "workers"),
    ],
)
def test_arguments_are_checked(arguments: dict, part: str) -> None:
    with pytest.raises(UserError, match=part):
        evaluate((Grey(), VIEW), [(np.zeros((8, 8, 3), np.uint8), 0)], **arguments)


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folders with images"):
        evaluate((Grey(), VIEW), tmp_path / "empty")
    with pytest.raises(UserError, match="no images"):
        evaluate((Grey(), VIEW), {"x": []})
    with pytest.raises(UserError, match="no model"):
        evaluate({}, {"x": [(np.zeros((8, 8, 3), np.uint8), 0)]})
    with pytest.raises(UserError, match="no benchmark"):
        evaluate((Grey(), VIEW), {})
    with pytest.raises(UserError, match="x is no benchmark"):
        evaluate((Grey(), VIEW), {"x": 3})


@pytest.mark.parametrize("workers", [0, 2])
def test_low_precision_and_workers(tiny: dict[str, nn.Module], workers: int) -> None:
    rng = np.random.default_rng(1)
    data = [(rng.integers(0, 256, (30, 26, 3), np.uint8), i % 7) for i in range(19)]
    exact = evaluate(tiny, {"x": data}, workers=workers).predictions["x"]["first"]
    low = evaluate(tiny, {"x": data}, workers=workers, precision="bf16").predictions["x"]["first"]
    assert 0 < np.abs(exact.confidence - low.confidence).max() < 0.05
