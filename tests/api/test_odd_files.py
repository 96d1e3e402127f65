"""A data set with every oddity of real ones: the good are read to the pixel, the bad are named, and a run agrees."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from odd_files import CLASSES, COMPOSED, DECOMPOSED, Odd, build, mask, orientation, palette, picture, save
from relevit import cli
from relevit.data.folder import check_files, class_folder_samples
from relevit.data.listing import list_images
from relevit.data.sets import ImageSet
from relevit.errors import FaultsError, UserError
from relevit.images import read_image, read_mask, to_rgb
from relevit.models.loading import save_checkpoint
from tiny_run import tiny_model

# PIL tells of the damaged EXIF data of one picture, and reads it.
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PIL's warnings about what is damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd")


@pytest.fixture(scope="module")
def odd(root: Path) -> list[Odd]:
    return build(root)


def folder(root: Path, **options: object) -> ImageSet:
    return class_folder_samples(root / "images", root / "masks", class_map=root / "classes.json", **options)[0]  # type: ignore[arg-type]


def test_good_pairs_are_read_to_the_pixel(root: Path, odd: list[Odd]) -> None:
    samples = folder(root, skip_bad=True)
    good = {each.name: each for each in odd if each.fault is None}
    assert len(good) >= 28 and set(samples.names) == set(good)
    for sample in samples:
        wanted = good[sample.name]
        assert wanted.picture is not None and wanted.mask is not None
        seen = np.asarray(sample.image).astype(int)
        assert seen.shape == wanted.picture.shape and sample.image.mode == "RGB", sample.name  # type: ignore[union-attr]
        assert np.abs(seen - wanted.picture.astype(int)).max() <= wanted.tolerance, sample.name
        assert np.array_equal(sample.mask, wanted.mask) and sample.mask.dtype == np.float32, sample.name
        assert sample.label == CLASSES[sample.name.split("/")[0]]
    assert set(samples.labels or ()) == {0, 1, 2}


@pytest.mark.parametrize("workers", [0, 3])
def test_bad_pairs_are_named_with_their_kind(workers: int, root: Path, odd: list[Odd]) -> None:
    with pytest.raises(FaultsError) as caught:
        folder(root, workers=workers)
    found = {}
    for fault in caught.value.faults:
        path = Path(fault.file)
        below = path.relative_to(root / ("masks" if path.is_relative_to(root / "masks") else "images"))
        found[str(below.with_suffix(""))] = fault.kind
    wanted = {str(Path(each.name).with_suffix("")): each.fault for each in odd if each.fault is not None}
    wanted["emu"] = wanted.pop("emu/1")  # once for the folder
    wanted["hollow"] = "no images"
    assert found == wanted and len(caught.value.faults) == len(wanted)
    told = {Path(fault.file).name: fault.detail for fault in caught.value.faults}
    assert "13 x 19, its image 19 x 13" in told["turned, mask as stored.png"]
    assert "EXIF" in told["turned, mask as stored.png"] and "EXIF" not in told["mask small.png"]
    assert told["mask of ids.png"] == "its highest value is 7 of 255" and told["mask zero.png"] == ""
    assert "link to a file that is not there" in told["link to nowhere.png"]
    assert "coloured" in told["mask coloured.png"] and "mask missing.png" in told["mask missing.png"]


def test_a_check_of_unchecked_samples_finds_the_same(root: Path, odd: list[Odd]) -> None:
    samples = folder(root, skip_bad=True, check=False)
    by_name = {"missing mask", "unknown class", None}
    wanted = sorted(each.fault for each in odd if each.fault is not None and each.fault not in by_name)
    told = [check_files(samples, number) for number in range(len(samples))]
    assert sorted(fault.kind for fault in told if fault) == wanted


def test_what_is_no_sample_is_passed_over(root: Path, odd: list[Odd]) -> None:
    listed = {path.relative_to(root / "images").as_posix() for path in list_images(root / "images")}
    assert listed == {each.name for each in odd}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(place, tiny_model())
    return str(place)


def call(command: str, root: Path, model: str, *more: object) -> list[str]:
    data = ["--images", root / "images", "--masks", root / "masks", "--class-map", root / "classes.json"]
    return [str(each) for each in [command, *data, "--model", model, "--no-progress", *more]]


def test_doctor_tells_of_every_bad_file_and_of_no_good_one(
    root: Path, odd: list[Odd], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(call("doctor", root, model, "--out", tmp_path / "found.json", "--workers", 2))
    assert stop.value.code == 1
    text = capsys.readouterr().out
    report = json.loads((tmp_path / "found.json").read_text())["data"]
    kinds: dict[str, list[str]] = {}
    for finding in report["findings"]:
        assert finding["count"] == len(finding["where"])
        kinds.setdefault(finding["kind"], []).extend(Path(where["file"]).stem for where in finding["where"])
        if finding["level"] == "fault":
            assert finding["kind"] in text and finding["remedy"][:20] in text
    faults = {kind for finding in report["findings"] if finding["level"] == "fault" for kind in [finding["kind"]]}
    wanted: dict[str, list[str]] = {"no images": ["hollow"]}
    for each in odd:
        if each.fault is not None:
            wanted.setdefault(each.fault, []).append("emu" if each.name == "emu/1.png" else Path(each.name).stem)
    assert {kind: sorted(kinds[kind]) for kind in faults} == {kind: sorted(names) for kind, names in wanted.items()}
    assert kinds["mask without an image"] == ["without image"]
    assert kinds["mask looks inverted"] == ["mask inverted"]
    assert kinds["mask covers nearly the whole image"] == ["mask all"]
    assert kinds["image: CMYK"] == ["cmyk"] and kinds["image: animated"] == ["animated"]
    assert kinds["image: grey"] == ["grey", "sixteen bits"] and kinds["image: 16 bits"] == ["sixteen bits"]
    assert kinds["image: palette"] == ["animated", "palette transparent", "palette"]
    assert kinds["image: alpha channel"] == ["palette transparent"]
    assert kinds["image: turned by EXIF"] == ["turned, mask as stored", "turned"]
    assert "same picture in several classes" not in kinds


def test_a_run_names_the_same_faults_and_goes_on_without_them(
    root: Path, odd: list[Odd], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--out", tmp_path / "run", "--epochs", 1, "--batch-size", 4, "--previews", 0, "--track", "none"]
    torch.manual_seed(0)
    with pytest.raises(SystemExit) as stop:
        cli.main(call("finetune", root, model, *quick))
    text = capsys.readouterr().err
    assert stop.value.code == 2 and not (tmp_path / "run").exists()
    for each in odd:
        stem = "emu" if each.name == "emu/1.png" else str(Path(each.name).with_suffix(""))
        assert (f"/{stem}" in text) == (each.fault is not None) or each.fault is None, each.name
    assert "17 faults" in text.splitlines()[0]

    cli.main(call("finetune", root, model, *quick, "--skip-bad"))
    with open(tmp_path / "run" / "split.csv", encoding="utf-8") as file:
        names = {row["name"] for row in csv.DictReader(file)}
    assert names == {each.name for each in odd if each.fault is None}
    assert (tmp_path / "run" / "best" / "model.safetensors").is_file()


def test_a_turned_picture_needs_an_upright_mask(tmp_path: Path) -> None:
    # Orientation 6: the camera was turned, the file has to be turned by a quarter, clockwise.
    stored = np.zeros((13, 19, 3), np.uint8)
    stored[:, :4] = 255  # the left edge as stored
    path = save(tmp_path / "a.png", stored, exif=orientation(6))
    seen = np.asarray(read_image(path))
    assert seen.shape == (19, 13, 3)
    assert (seen[:4] == 255).all() and (seen[4:] == 0).all()  # is the top edge


def test_a_class_folder_may_be_a_link_but_not_to_nowhere(tmp_path: Path) -> None:
    save(tmp_path / "else/a.png", picture(0))
    save(tmp_path / "masks/cow/a.png", 255 * mask(0))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/cow").symlink_to(tmp_path / "else")
    assert len(class_folder_samples(tmp_path / "images", tmp_path / "masks", classes={"cow": 0})[0]) == 1
    (tmp_path / "images/gnu").symlink_to(tmp_path / "gone")
    with pytest.raises(FaultsError) as caught:
        class_folder_samples(tmp_path / "images", tmp_path / "masks", classes={"cow": 0})
    assert [(fault.kind, Path(fault.file).name) for fault in caught.value.faults] == [("no images", "gnu")]
    assert caught.value.faults[0].detail == f"a link to {tmp_path / 'gone'}, not there"


def test_a_second_link_to_a_class_folder_is_told(tmp_path: Path) -> None:
    save(tmp_path / "images/cow/a.png", picture(0))
    save(tmp_path / "masks/cow/a.png", 255 * mask(0))
    (tmp_path / "images/gnu").symlink_to(tmp_path / "images/cow")
    with pytest.raises(FaultsError) as caught:
        class_folder_samples(tmp_path / "images", tmp_path / "masks", classes={"cow": 0, "gnu": 1})
    assert [(fault.kind, Path(fault.file).name) for fault in caught.value.faults] == [("no images", "gnu")]
    assert "read once" in caught.value.faults[0].detail


def test_names_that_look_the_same_are_one(tmp_path: Path) -> None:
    save(tmp_path / f"images/{DECOMPOSED}/a.png", picture(0))
    save(tmp_path / f"masks/{COMPOSED}/a.png", 255 * mask(0))
    samples, _ = class_folder_samples(tmp_path / "images", tmp_path / "masks", classes={COMPOSED: 4})
    assert samples.labels == [4] and np.array_equal(samples[0].mask, mask(0))
    save(tmp_path / f"images/{COMPOSED}/a.jpg", picture(1))
    with pytest.raises(FaultsError, match="one mask for several images"):
        class_folder_samples(tmp_path / "images", tmp_path / "masks", classes={COMPOSED: 4})


@pytest.mark.parametrize("tag", [0x010E, 0x0123, 0x011F])  # a description; the others are numbers, and text is none
def test_damaged_exif_data_do_not_hide_the_orientation(tag: int, tmp_path: Path) -> None:
    exif = orientation(6)
    exif[0x010E] = "hello"
    path = save(tmp_path / "a.jpg", np.rot90(picture(0)), exif=exif)
    whole = path.read_bytes()
    assert whole.count(b"\x01\x0e\0\2") == 1
    path.write_bytes(whole.replace(b"\x01\x0e\0\2", tag.to_bytes(2, "big") + b"\0\2"))
    seen = read_image(path)
    assert np.abs(np.asarray(seen).astype(int) - picture(0)).max() <= 3
    assert seen.getexif() == {}  # so that nobody turns it again
    path.write_bytes(whole.replace(b"MM\0*", b"MX\0*"))
    assert read_image(path).size == (13, 19)  # as stored: nothing of it can be read


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "bmp", "tif"])
def test_no_damage_makes_anything_but_a_clear_error(ending: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / f"a.{ending}"
    whole = save(path, rng.integers(0, 256, (13, 19, 3), np.uint8)).read_bytes()
    refused = 0
    for number in range(80):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if number % 2 else whole)
        for at in rng.integers(0, min(len(damaged), 99), number % 5):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        with _quiet():
            for read in (read_image, read_mask):
                try:
                    read(path)
                except UserError as error:
                    refused += 1
                    assert str(path) in str(error)
    assert refused > 80  # of 160: a coloured picture is no mask


def test_pictures_of_floating_point_numbers(tmp_path: Path) -> None:
    values = np.array([[0, 0.2, 1]], np.float32)
    assert np.asarray(to_rgb(Image.fromarray(values)))[0, :, 1].tolist() == [0, 51, 255]
    assert np.asarray(to_rgb(Image.fromarray(values * 200)))[0, :, 1].tolist() == [0, 40, 200]


def test_transparent_palettes(tmp_path: Path) -> None:
    indices = np.arange(6).reshape(2, 3) % 3
    colours = [200, 30, 40, 10, 220, 60, 70, 80, 250]
    path = save(tmp_path / "a.png", palette(indices, colours), transparency=1)
    assert np.array_equal(np.asarray(read_image(path)), np.array(colours).reshape(3, 3)[indices])
    assert np.array_equal(read_mask(path), indices != 1)
