"""evaluation: hits against torchmetrics and by hand; several models, unreadable images, labels that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_accuracy

from relevit.data.benchmarks import class_folders
from relevit.errors import UserError
from relevit.evaluation import evaluate
from relevit.evaluation.accuracy.recall import Accuracy, hits_at
from relevit.models.view import evaluation_view
from relevit.statistics.interval import wilson

CONFIG = {"input_size": (3, 8, 8), "mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear", "crop_pct": 1.0}


class Grey(nn.Module):
    """Answers with the class whose number is the mean grey, 0 to 255, divided by `step`; the next classes come next."""

    def __init__(self, classes: int, step: float = 10) -> None:
        super().__init__()
        self.num_classes, self.step = classes, step
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.modes.append(self.training)
        guess = (images.mean(dim=(1, 2, 3)) * 255 / self.step).round()
        return -(torch.arange(self.num_classes) - guess[:, None]).abs() + 0.01 * torch.arange(self.num_classes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # class index -> greys; a model of step 10 answers grey / 10
    for name, greys in {"0": [0, 0, 50], "3": [30, 70], "11": [110, 110, 110, 40, 20]}.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for i, grey in enumerate(greys):
            Image.new("RGB", (8, 8), (grey,) * 3).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("k", [1, 5])
def test_hits_against_torchmetrics(k: int) -> None:
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(211, 13, generator=generator), torch.randint(13, (211,), generator=generator)
    expected = multiclass_accuracy(logits, labels, 13, average="micro", top_k=k)
    assert hits_at(logits, labels, k).float().mean().item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_constant_answer_hits_the_first_classes_only() -> None:
    labels = torch.arange(7)
    assert hits_at(torch.zeros(7, 7), labels, 1).tolist() == [True] + [False] * 6
    assert hits_at(torch.zeros(7, 7), labels, 5).tolist() == [True] * 5 + [False] * 2


def test_what_is_not_finite_is_no_hit() -> None:
    logits = torch.tensor([[float("nan"), 0.0, 1.0], [float("inf"), 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert hits_at(logits, torch.tensor([2, 2, 2]), 5).tolist() == [False, False, True]


def test_folder_by_hand(folder: Path) -> None:
    report = evaluate(Grey(13), folder, transform=evaluation_view(CONFIG), batch_size=3)
    accuracy = report.accuracy()
    # folders sort as 0, 11, 3: hits of 0: yes yes no; of 11: yes yes yes no no; of 3: yes no
    assert accuracy.hit1.tolist() == [True, True, False, True, True, True, False, False, True, False]
    assert dict(accuracy)["r1"] == pytest.approx(60.0)
    assert {name: part.r1 for name, part in accuracy.per_class().items()} == pytest.approx(
        {"0": 200 / 3, "11": 60.0, "3": 50.0}
    )
    assert accuracy.r1_interval.ends == pytest.approx(tuple(100 * end for end in wilson(6, 10)))
    # five first answers of grey 50: 5 6 4 7 3; of 40 and 20 never 11; of 70: 7 8 6 9 5
    assert accuracy.hit5.tolist() == [True, True, False, True, True, True, False, False, True, False]


def test_models_side_by_side_each_with_its_view(folder: Path) -> None:
    dark = evaluation_view({**CONFIG, "std": (3.0,) * 3})
    models = {"one": (Grey(13), evaluation_view(CONFIG)), "dark": (Grey(13), dark), "fine": (Grey(13, 10 / 3), dark)}
    report = evaluate(models, {"a": folder, "b": folder})
    assert list(report.accuracies) == ["a", "b"] and list(report.accuracies["a"]) == ["one", "dark", "fine"]
    assert report.accuracy("one", "b").r1 == pytest.approx(60.0)
    assert report.accuracy("dark", "b").r1 == pytest.approx(20.0)  # a third as bright: only the black images of class 0
    assert report.accuracy("fine", "b").r1 == pytest.approx(60.0)


def test_models_with_other_classes_map_the_folders_their_own_way(folder: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed"
    folder.rename(renamed)
    for old, new in (("0", "zero"), ("3", "three"), ("11", "eleven")):
        (renamed / old).rename(renamed / new)
    with pytest.raises(UserError, match="zero"):
        evaluate(Grey(13), renamed, transform=evaluation_view(CONFIG))
    report = evaluate(
        Grey(13), renamed, transform=evaluation_view(CONFIG), class_map={"zero": 0, "three": 3, "eleven": 11}
    )
    assert report.accuracy().r1 == pytest.approx(60.0) and set(report.accuracy().groups) == {"zero", "three", "eleven"}


def test_unreadable_images_are_counted_and_named(folder: Path, tmp_path: Path) -> None:
    (folder / "3" / "1.png").write_bytes(b"broken")
    report = evaluate(Grey(13), folder, transform=evaluation_view(CONFIG), batch_size=2)
    assert len(report.accuracy()) == 9 and report.accuracy().r1 == pytest.approx(600 / 9)
    (((file, reason),),) = report.unreadable.values()
    assert file.endswith("3/1.png") and "1.png" in reason
    report.save(tmp_path / "made" / "figures.json")
    saved = json.loads((tmp_path / "made" / "figures.json").read_text())["benchmarks"][str(folder)]
    assert saved["models"]["model"]["images"] == 9 and saved["unreadable"][0]["file"] == file
    assert saved["models"]["model"]["classes"]["3"]["r1"] == 100.0


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "a.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"a\.png"):
        evaluate(Grey(13), tmp_path, transform=evaluation_view(CONFIG))


def test_datasets_of_pairs_arrays_and_tensors() -> None:
    arrays = [(np.full((8, 8, 3), 10 * i, np.uint8), i) for i in range(7)]
    tensors = [(torch.full((3, 8, 8), 10 * i / 255), 6 - i) for i in range(7)]
    report = evaluate(Grey(7), {"arrays": arrays, "tensors": tensors}, transform=evaluation_view(CONFIG))
    assert report.accuracy(benchmark="arrays").r1 == 100.0
    assert report.accuracy(benchmark="tensors").r1 == pytest.approx(100 / 7)


def test_label_outside_the_classes_is_an_error(folder: Path) -> None:
    with pytest.raises(UserError, match="11"):
        evaluate(Grey(11), folder, transform=evaluation_view(CONFIG))
    with pytest.raises(UserError, match="the label 7"):
        evaluate(Grey(7), [(np.zeros((8, 8, 3), np.uint8), 7)], transform=evaluation_view(CONFIG))


def test_mode_is_as_before_also_after_an_error(folder: Path) -> None:
    model = Grey(13).train()
    model.part = nn.Dropout().eval()
    evaluate(model, folder, transform=evaluation_view(CONFIG))
    assert not any(model.modes) and model.training and not model.part.training
    with pytest.raises(UserError):
        evaluate(model, [(np.zeros((8, 8, 3), np.uint8), 99)], transform=evaluation_view(CONFIG))
    assert model.training and not model.part.training


def test_table_names_everything(folder: Path) -> None:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(evaluate({"first": Grey(13)}, {"mine": folder}, transform=evaluation_view(CONFIG)).table())
    text = captured.get()
    assert "first" in text and "mine" in text and "60.0 (31.3 to 83.2)" in text


def test_part_of_the_images() -> None:
    accuracy = Accuracy(np.array([True, False, True]), np.array([True, True, True]), np.array(["a", "b", "b"]))
    assert accuracy.only(accuracy.groups == "b").r1 == 50.0 and len(accuracy.only(accuracy.groups == "a")) == 1


def test_class_folders_as_a_dataset(folder: Path) -> None:
    report = evaluate(Grey(13), {"folders": class_folders(folder)}, transform=evaluation_view(CONFIG))
    assert report.accuracy().r1 == pytest.approx(60.0)
