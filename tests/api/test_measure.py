"""`relevit measure` as typed, and what it reads: folders with masks, flat or by class, the built-in benchmark, gtsegs_ijcv.mat."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
from PIL import Image

import relevit
import relevit.data.builtin.sets as builtin
from benchmark_trees import Classifier, save, val_name
from gtsegs_file import write
from measuring import measure as measure_one
from relevit import cli
from relevit.api.measure import Measured, _cell, _table
from relevit.data.builtin.digits import CLASSES, TEST_SETS, Pictures, draw_objects, draw_pictures
from relevit.data.folder import images_with_masks
from relevit.data.open import one_of
from relevit.data.sets import ImageSet
from relevit.errors import UserError
from relevit.evaluation.batches import Framing
from relevit.evaluation.measurement import Work
from relevit.evaluation.measurements import MEASUREMENTS, measurement, open_data, options_of
from relevit.evaluation.rows import Part, array
from relevit.models.loading import load, save_checkpoint
from relevit.statistics.estimate import Estimate

SIZES = ((23, 31), (29, 19), (17, 37))
ARGUMENTS = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 5}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_checkpoint(folder / str(seed), timm.create_model("vit_tiny_patch16_224", **ARGUMENTS))
    return [str(folder / "1"), str(folder / "2")]


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sets of the built-in benchmark have 21 pictures, three of each object; drawing a whole one takes seconds."""

    def few(name: str, split: str, views: int) -> Pictures:
        objects = draw_objects("test", 3)
        return draw_pictures(objects, np.tile([0, 1, 2, 5, 7, 403, 409], 3), "any", (5,), name=name)

    monkeypatch.setattr(builtin, "test_set", few)
    monkeypatch.setattr(builtin, "_EACH", 2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """images/<class>/<n>.png of several sizes, masks/<class>/<n>.png."""
    rng = np.random.default_rng(0)
    for label in range(2):
        for number, (height, width) in enumerate(SIZES):
            image = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
            mask = np.zeros((height, width), np.uint8)
            mask[5:16, 7:17] = 255
            image[mask > 0] += 100
            for kind, values in (("images", image), ("masks", mask)):
                path = tmp_path / kind / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    cli.main(["measure", *(str(argument) for argument in arguments), "--device", "cpu"])
    return capsys.readouterr()


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(["measure", *(str(argument) for argument in arguments)])
    text = capsys.readouterr().err
    assert stop.value.code == 2 and text.startswith("relevit: error: ") and text.count("\n") == 1
    return text


def test_two_models_side_by_side(models: list[str], data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data / "figures.json"
    text, errors = run(
        capsys,
        "segmentation",
        *models,
        "--data",
        data / "images",
        "--masks",
        data / "masks",
        "--out",
        out,
        "--batch-size",
        4,
    )
    assert "pixel_accuracy" in text and f"minus {models[0]}"[:20] in text and errors == ""
    content = json.loads(out.read_text())
    assert content["test"] == "segmentation" and list(content["models"]) == models
    direct = [
        dict(measure_one("segmentation", *load(name), images_with_masks(data / "images", data / "masks")))
        for name in models
    ]
    for name, figures in zip(models, direct, strict=True):
        assert content["models"][name]["figures"] == pytest.approx(figures, abs=1e-4)
        assert content["models"][name]["per_image"]["name"] == [f"{c}/{n}.png" for c in range(2) for n in range(3)]
        assert content["models"][name]["classes"]["1"]["images"] == 3
        for figure, (low, high) in content["models"][name]["intervals"].items():
            assert low <= figures[figure] <= high and low < high
    second = content["models"][models[1]]["minus_first"]
    for figure, found in second.items():
        assert found["value"] == pytest.approx(direct[1][figure] - direct[0][figure], abs=1e-4)
        assert found["interval"][0] <= found["value"] <= found["interval"][1]
    assert content["models"][models[0]]["minus_first"] == {}
    assert "is there already" in fails(capsys, "segmentation", models[0], "--data", data, "--out", out)


def test_a_set_in_memory_is_measured_as_its_folder_is(models: list[str], data: Path) -> None:
    images = images_with_masks(data / "images", data / "masks")
    by_path, by_set = (relevit.measure("localization", models[0], data=given).results for given in (str(data), images))
    assert by_set[models[0]].to_dict() == by_path[models[0]].to_dict()


def test_which_set_is_taken_is_said(models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text, _ = run(capsys, "knn", models[0], "--data", "builtin", "--train", "builtin/train", "--options", "{k: 3}")
    assert f"builtin stands for several sets, builtin/{TEST_SETS[0]} is taken; --benchmark takes another" in text


def test_the_same_again_is_the_same_to_the_bit(
    models: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.json", "b.json"):
        run(
            capsys,
            "localization",
            *models,
            "--data",
            data,
            "--out",
            data / name,
            "--limit",
            4,
            "--seed",
            3,
            "--workers",
            2,
        )
    assert (data / "a.json").read_bytes() == (data / "b.json").read_bytes()
    assert json.loads((data / "a.json").read_text())["models"][models[0]]["images"] == 4


def test_images_that_do_not_count_are_named(models: list[str], data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "images/0/1.png").write_bytes(b"no picture")
    (data / "masks/1/0.png").unlink()
    out = data / "figures.json"
    _, errors = run(capsys, "localization", models[0], "--data", data, "--out", out)
    assert "2 images do not count" in errors and "0/1.png" in errors and "it has no mask" in errors
    left_out = json.loads(out.read_text())["models"][models[0]]["left_out"]
    assert [each["name"] for each in left_out] == ["0/1.png", "1/0.png"]


def test_the_label_as_target(models: list[str], data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data / "label.json"
    run(capsys, "localization", models[0], "--data", data, "--options", "{target: label, tolerance: 0}", "--out", out)
    assert json.loads(out.read_text())["options"]["target"] == "label"
    (data / "images/1").rename(data / "images/cat")
    (data / "masks/1").rename(data / "masks/cat")
    text = fails(capsys, "localization", models[0], "--data", data, "--options", "{target: label}")
    assert "the class of cat/0.png is not known" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "builtin", "--data", "builtin"], "there is no test 'segment'; known are: segmentation ("),
        (
            ["segmentation", "builtin", "--data", "builtin", "--options", "{speed: 1}"],
            "segmentation has no option 'speed'",
        ),
        (["segmentation", "builtin", "--data", "builtin", "--options", "{target: truth}"], "target must be one of"),
        (["segmentation", "builtin", "--data", "builtin", "--explainer", "magic"], "explainer must be one of"),
        (["segmentation", "builtin", "--data", "builtin", "--train", "x"], "leave out --train"),
        (
            ["segmentation", "builtin", "--data", "builtin/night"],
            "builtin/night is no set of the built-in benchmark: builtin/NAME, with NAME one of in_distribution",
        ),
        (["segmentation", "builtin", "--data", "builtin", "--masks", "x"], "has exact masks: leave out --masks"),
        (["segmentation", "builtin", "--data", "nowhere"], "nowhere is not there"),
        (["segmentation", "builtin", "--data", "nowhere.mat"], "There is no file nowhere.mat"),
        (["segmentation", "builtin", "builtin", "--data", "builtin"], "two models are called builtin"),
        (["segmentation", "builtin", "--data", "builtin", "--limit", "0"], "--limit must be"),
        (["knn", "builtin", "--data", "builtin"], "give --train DIR"),
        (
            ["knn", "builtin", "--data", "builtin", "--train", "builtin/train", "--explainer", "gae"],
            "leave out --explainer",
        ),
        (["perturbation", "builtin", "--data", "builtin", "--masks", "x"], "takes no masks: leave out --masks"),
        (["perturbation", "builtin", "--data", "nowhere"], "there is no nowhere: give a folder"),
    ],
)
def test_what_a_user_can_get_wrong(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in fails(capsys, *arguments)


def test_the_mat_file(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.json"
    run(capsys, "segmentation", models[0], "--data", write(tmp_path / "gtsegs_ijcv.mat"), "--out", out)
    found = json.loads(out.read_text())["models"][models[0]]
    assert found["per_image"]["name"] == ["00000", "00001"] and found["classes"] == {}
    kinds = ("background_as_background", "background_as_object", "object_as_background", "object_as_object")
    assert [sum(found["per_image"][kind][image] for kind in kinds) for image in range(2)] == [32 * 32] * 2


def test_a_measurement_of_ones_own_is_one_row(
    models: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A result that only yields pairs has no intervals."""

    class Plain:
        def __init__(self, value: float) -> None:
            self.value = value

        def __iter__(self):
            yield "size", self.value

        def to_dict(self) -> dict:
            return {"size": self.value}

    @dataclass(frozen=True)
    class Size:
        factor: float = 1.0
        needs: ClassVar = "images"
        description: ClassVar = "how many images"
        batch_size: ClassVar = 3

        def columns(self) -> pa.Schema:
            return pa.schema([("one", pa.float64())])

        def framings(self, model) -> list[Framing]:
            return [Framing(model.view)]

        def begin(self, model, images) -> Work:
            return Work(
                lambda batches: Part(batches[0].items, {"one": [1.0] * len(batches[0].items)}, batches[0].faults)
            )

        def figures(self, rows: pa.Table) -> Plain:
            return Plain(self.factor * array(rows, "one").sum())

    monkeypatch.setitem(MEASUREMENTS, "size", Size)
    assert options_of(measurement("size")) == ("factor",)
    out = tmp_path / "size.json"
    text, _ = run(capsys, "size", *models, "--data", "builtin", "--limit", 7, "--options", "{factor: 2}", "--out", out)
    assert "size" in text and "14" in text
    assert json.loads(out.read_text())["models"][models[0]] == {"size": 14.0, "intervals": {}, "minus_first": {}}


def test_a_table_row_for_each_figure_and_model() -> None:
    found = {"one": [("a", 1.0), ("b", 2.0)], "two": [("a", 3.5), ("b", float("nan"))]}
    ends = {"one": {"a": Estimate(1.0, 0.0, 2.0, 7, "images")}, "two": {"a": Estimate(3.5, 3.0, 4.0, 7, "images")}}
    table = _table(
        "test on data", Measured(found, ends, {"one": {}, "two": {"a": Estimate(2.5, -1.0, 3.0, 7, "images")}}, "")
    )
    columns = list(zip(*filter(None, table.rows), strict=True))
    assert columns[0] == ("a", "", "b", "") and columns[1] == ("one", "two") * 2
    assert columns[2] == ("1 (0 to 2)", "3.5 (3 to 4)", "2", "nan")
    assert columns[3] == ("", "+2.5 (-1 to +3)", "", "")
    assert (
        _cell(82.41666, Estimate(82.41666, 80.4249, 100.0, 7, "images")) == "82.42 (80.42 to 100)"
        and _cell(0.27512, Estimate(0.27512, -0.001, 0.0, 7, "images"), "+") == "+0.28 (+0 to +0)"
    )


def masked(given: object) -> ImageSet:
    return one_of(given, masked=True)[1]


def test_a_flat_folder_needs_no_classes(data: Path) -> None:
    found = images_with_masks(data / "images/0", data / "masks/0").labelled_for(None)
    assert found.names == ["0.png", "1.png", "2.png"] and found.groups == [""] * 3 and found.labels == [-1] * 3
    sample = found[1]
    assert sample.image.size == (19, 29) and sample.mask.shape == (29, 19) and sample.mask.sum() == 11 * 10
    assert sample.mask[5, 7] == 1 and sample.mask[7, 5] == 0


def test_masks_beside_the_images_and_in_their_alpha(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((5, 7, 3), 200, np.uint8))
    mask = np.zeros((5, 7), np.uint8)
    mask[1:3, 2] = 255
    (tmp_path / "both").mkdir()
    picture.save(tmp_path / "both/a.jpg")
    Image.fromarray(mask).save(tmp_path / "both/a.png")
    found = images_with_masks(tmp_path / "both", tmp_path / "both")
    assert found.names == ["a.jpg"] and np.array_equal(found[0].mask * 255, mask)
    (tmp_path / "alpha").mkdir()
    picture.putalpha(Image.fromarray(mask))
    picture.save(tmp_path / "alpha/b.png")
    assert np.array_equal(images_with_masks(tmp_path / "alpha")[0].mask * 255, mask)


def test_pictures_without_masks_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Image.fromarray(np.full((5, 7, 3), 200, np.uint8))
    for name in ("a.jpg", "b.png", "c.png"):
        picture.save(tmp_path / name)
    monkeypatch.setattr("relevit.data.folder.read_image", lambda path: pytest.fail("a picture was read"))
    with pytest.raises(UserError, match=r"No image of .* has an alpha channel .*--masks"):
        masked(tmp_path)
    picture.putalpha(Image.fromarray(np.eye(5, 7, dtype=np.uint8) * 255))
    picture.save(tmp_path / "c.png")
    assert len(masked(tmp_path)) == 3  # one with a mask is enough, the others are left out and told


def test_ignored_pixels_and_classes_of_the_model(data: Path) -> None:
    region = np.zeros(SIZES[2], np.uint8)
    region[3, 30] = 9
    (data / "ignored/1").mkdir(parents=True)
    Image.fromarray(region).save(data / "ignored/1/2.png")
    model = timm.create_model("vit_tiny_patch16_224", **ARGUMENTS)
    (data / "images/1").rename(data / "images/9")  # no class of the model
    (data / "masks/1").rename(data / "masks/9")
    (data / "ignored/1").rename(data / "ignored/9")
    found = images_with_masks(data / "images", data / "masks", ignore=data / "ignored").labelled_for(model)
    assert found.labels == [0, 0, 0, -1, -1, -1] and found.groups == ["0"] * 3 + ["9"] * 3
    assert found[0].ignore is None and np.array_equal(found[5].ignore, region > 0)
    mapped = masked(data).labelled_for(model, {"0": 3, "9": 2})
    assert mapped.labels == [3, 3, 3, 2, 2, 2] and mapped[4].label == 2


def test_folders_without_images_or_masks(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images in .*empty"):
        images_with_masks(tmp_path / "empty", data / "masks")
    with pytest.raises(UserError, match=r"No image of .*images has a mask in .*: expected .*empty/0/0.png"):
        images_with_masks(data / "images", tmp_path / "empty")
    (data / "images/0/0.jpg").write_bytes((data / "images/0/0.png").read_bytes())
    with pytest.raises(UserError, match="would share one mask"):
        images_with_masks(data / "images", data / "masks")
    with pytest.raises(UserError, match=r"There is no folder"):
        images_with_masks(data / "images", data / "nowhere")


def test_the_built_in_benchmark_and_the_mat_file(tmp_path: Path) -> None:
    pictures = masked("builtin/background_shuffled")
    assert pictures.masked and pictures.name == "builtin/background_shuffled"
    assert pictures.groups[0] == CLASSES[pictures[0].label] and len(set(pictures.objects)) == len(pictures) / 3
    assert masked("builtin").name == f"builtin/{TEST_SETS[0]}"
    train = one_of("builtin/train")[1]
    assert len(train) == 2 * 20 and train.labels.count(13) == 2
    found = masked(write(tmp_path / "gtsegs_ijcv.mat"))
    assert len(found) == 2 and found[1].mask.shape == (13, 5)


def test_benchmarks_are_opened_by_their_layout(data: Path) -> None:
    found, extra = open_data(MEASUREMENTS["perturbation"].needs, str(data / "images"))
    assert len(found) == 6 and found.class_names == ["0", "1"] and extra is None
    _, extra = open_data(MEASUREMENTS["knn"].needs, str(data / "images"), train=str(data / "images"))
    assert len(extra) == 6
    with pytest.raises(UserError, match=r"holds several sets: give --benchmark, one of images, masks"):
        one_of(str(data))[1]
    assert one_of(str(data), "images")[1].class_names == ["0", "1"]
    with pytest.raises(UserError, match=r"there is no benchmark mask in .*; there are: images, masks"):
        one_of(str(data), "mask")[1]
    with pytest.raises(UserError, match="leave out --benchmark"):
        open_data(MEASUREMENTS["segmentation"].needs, str(data / "images"), benchmark="images")


def test_known_benchmarks_keep_their_rules(tmp_path: Path) -> None:
    save(tmp_path / "imagenet-a" / "n01498041" / "a.png")
    save(tmp_path / "imagenet-r" / "n01443537" / "a.png")
    for name in (val_name(1), val_name(2)):
        save(tmp_path / "val" / "n01440764" / name)
    row = MEASUREMENTS["perturbation"]
    for protocol, competing in (("standard", 200), ("paper", None)):
        found, _ = open_data(row.needs, str(tmp_path), protocol=protocol, benchmark="imagenet-a")
        classes = found.competing_classes(Classifier(1000))
        assert found.name == "imagenet-a" and (classes if competing is None else len(classes)) == competing
        assert found.right_classes(Classifier(1000)) == [(6,)]
    with pytest.raises(UserError, match=r"give --benchmark, one of imagenet, imagenet-a, imagenet-r"):
        open_data(row.needs, str(tmp_path))
    assert one_of(str(tmp_path / "val"))[1].name == "imagenet"  # not the reassessed labels of the same images
    assert one_of(str(tmp_path), "imagenet-real")[1].name == "imagenet-real"


def test_paper_preprocessing_goes_with_the_paper_protocol(
    models: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for protocol in ("standard", "paper"):
        out = data / f"{protocol}.json"
        text, _ = run(capsys, "segmentation", models[0], "--data", data, "--protocol", protocol, "--out", out)
        assert f"protocol: {protocol}" in " ".join(text.split()) and json.loads(out.read_text())["protocol"] == protocol
