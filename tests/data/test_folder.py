"""Folders of class folders: images and masks paired by name, every fault found at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relevit.data.folder import check_files, class_folder_samples
from relevit.data.sets import ImageSet
from relevit.errors import Fault, FaultsError, UserError

HEIGHT, WIDTH = 7, 11
CLASSES = {"cow": 3, "ein Käfer": 1}


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def mask(seed: int) -> np.ndarray:
    return ((np.random.default_rng(seed).random((HEIGHT, WIDTH)) > 0.7) * 255).astype(np.uint8)


def save(path: Path, values: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(["ein Käfer/2 ü", "cow/b", "cow/deep/a", "cow/a"]):
        save(tmp_path / f"images/{name}.png", picture(seed))
        save(tmp_path / f"masks/{name}.png", mask(seed))
    return tmp_path


def found(root: Path, **options: object) -> tuple[ImageSet, list[Fault]]:
    return class_folder_samples(root / "images", root / "masks", classes=CLASSES, **options)  # type: ignore[arg-type]


def folder(root: Path, **options: object) -> ImageSet:
    return found(root, **options)[0]


def test_pairs_are_read_by_name_in_sorted_order(root: Path) -> None:
    samples = folder(root)
    names = ["cow/a.png", "cow/b.png", "cow/deep/a.png", "ein Käfer/2 ü.png"]
    assert samples.names == names
    assert samples.labels == [3, 3, 3, 1]
    assert samples.groups == ["cow", "cow", "cow", "ein Käfer"]
    for index, seed in enumerate([3, 1, 2, 0]):
        sample = samples[index]
        assert np.array_equal(np.asarray(sample.image), picture(seed))
        assert np.array_equal(sample.mask * 255, mask(seed)) and sample.mask.dtype == np.float32
        assert sample.label == samples.labels[index] and sample.ignore is None and sample.name == names[index]


def test_masks_may_be_composed_differently_or_end_in_capitals(root: Path) -> None:
    save(root / "masks/cow/a.PNG", mask(3))
    (root / "masks/cow/a.png").unlink()
    (root / "masks/ein Käfer").rename(root / "masks/ein Ka\u0308fer")
    samples = folder(root)
    assert len(samples) == 4 and np.array_equal(samples[0].mask * 255, mask(3))


def test_masks_beside_their_images(tmp_path: Path) -> None:
    save(tmp_path / "cow/a.jpg", picture(0))
    save(tmp_path / "cow/a.png", mask(0))
    samples, _ = class_folder_samples(tmp_path, tmp_path, classes=CLASSES)
    assert samples.names == ["cow/a.jpg"]
    assert np.array_equal(samples[0].mask * 255, mask(0))


def test_without_masks_the_alpha_of_the_images_counts(tmp_path: Path) -> None:
    save(tmp_path / "cow/a.png", np.dstack([picture(0), mask(0)]))
    samples, _ = class_folder_samples(tmp_path, classes=CLASSES)
    assert np.array_equal(samples[0].mask * 255, mask(0))
    assert np.array_equal(np.asarray(samples[0].image), picture(0))
    save(tmp_path / "cow/b.png", picture(0))
    save(tmp_path / "cow/c.png", np.dstack([picture(0), np.full((HEIGHT, WIDTH), 255, np.uint8)]))
    with pytest.raises(FaultsError) as caught:
        class_folder_samples(tmp_path, classes=CLASSES)
    assert [(fault.kind, Path(fault.file).name) for fault in caught.value.faults] == [
        ("missing mask", "b.png"),
        ("missing mask", "c.png"),
    ]


def test_ignored_regions(root: Path) -> None:
    save(root / "ignore/cow/b.png", mask(17))
    save(root / "ignore/cow/a.png", 0 * mask(17))
    samples = folder(root, ignore=root / "ignore")
    assert samples[1].ignore is not None and np.array_equal(samples[1].ignore, mask(17) > 0)
    assert samples[0].ignore is not None and not samples[0].ignore.any()
    assert samples[3].ignore is None


def plant(root: Path) -> None:
    """One fault of each kind, beside the four good samples."""
    images, masks = root / "images", root / "masks"
    for name in ("short", "text mask", "empty mask", "small", "turned"):
        save(images / f"cow/{name}.jpg", picture(1))
        save(masks / f"cow/{name}.png", mask(1))
    (images / "cow/short.jpg").write_bytes((images / "cow/short.jpg").read_bytes()[:200])
    (masks / "cow/text mask.png").write_text("no picture")
    save(masks / "cow/empty mask.png", 0 * mask(1) + 3)  # nothing at least half foreground
    save(masks / "cow/small.png", mask(1)[:5])
    exif = Image.Exif()
    exif[0x0112] = 6
    save(images / "cow/turned.jpg", picture(1), exif=exif)
    save(images / "cow/without.jpg", picture(1))
    save(images / "emu/1.jpg", picture(1))
    save(masks / "emu/1.png", mask(1))
    save(images / "emu/2.jpg", picture(1))
    save(masks / "emu/2.png", mask(1)[:, :5])
    save(images / "stray.jpg", picture(1))
    save(images / "cow/b.jpg", picture(1))
    (images / "void").mkdir()


KINDS = {
    "short.jpg": "unreadable image",
    "text mask.png": "unreadable mask",
    "empty mask.png": "empty mask",
    "small.png": "mask of another size",
    "turned.png": "mask of another size",
    "without.jpg": "missing mask",
    "emu": "unknown class",
    "2.png": "mask of another size",
    "stray.jpg": "unknown class",
    "b.png": "one mask for several images",
    "void": "no images",
}


@pytest.mark.parametrize("workers", [0, 3])
def test_every_fault_is_found_at_once(workers: int, root: Path) -> None:
    plant(root)
    calls: list[tuple[int, int]] = []
    with pytest.raises(FaultsError) as caught:
        folder(root, workers=workers, progress=lambda count, total: calls.append((count, total)))
    assert {Path(fault.file).name: fault.kind for fault in caught.value.faults} == KINDS
    assert len(caught.value.faults) == len(KINDS)
    message = str(caught.value)
    assert all(kind in message and name in message for name, kind in KINDS.items())
    assert f"{len(KINDS)} faults" in message and "--skip-bad" in message
    detail = {Path(fault.file).name: fault.detail for fault in caught.value.faults}
    assert "11 x 5, its image 11 x 7" in detail["small.png"]
    assert "EXIF" in detail["turned.png"] and "7 x 11" in detail["turned.png"]
    assert calls == [(1, 11)] * 11


def test_skip_bad_keeps_the_good_and_reports(root: Path) -> None:
    plant(root)
    samples, faults = found(root, skip_bad=True)
    good = {"cow/a.png", "cow/b.jpg", "cow/deep/a.png", "ein Käfer/2 ü.png"}
    assert set(samples.names) == good
    assert len(faults) == len(KINDS)
    assert {sample.name for sample in samples} == good


def test_nothing_left_is_an_error_even_when_bad_ones_are_skipped(tmp_path: Path) -> None:
    save(tmp_path / "images/emu/1.jpg", picture(1))
    save(tmp_path / "masks/emu/1.png", mask(1))
    with pytest.raises(FaultsError, match="emu"):
        folder(tmp_path, skip_bad=True)


def test_missing_and_empty_folders_are_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"no folder .*masks"):
        folder(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(FaultsError, match=r"no images \(1\)"):
        folder(tmp_path, skip_bad=True)
    with pytest.raises(UserError, match=r"no folder .*none"):
        class_folder_samples(tmp_path / "none", classes=CLASSES)


def test_without_check_files_are_read_later(root: Path) -> None:
    plant(root)
    samples, faults = found(root, skip_bad=True, check=False)
    assert {fault.kind for fault in faults} == {
        "missing mask",
        "unknown class",
        "one mask for several images",
        "no images",
    }
    part = samples.subset([samples.names.index("cow/small.jpg"), samples.names.index("cow/a.png"), 0]).subset([1, 0])
    told = [check_files(part, number) for number in range(2)]
    assert [(fault.kind, Path(fault.file).name) for fault in told if fault] == [("mask of another size", "small.png")]
    told = [check_files(samples, number) for number in range(len(samples))]
    assert {fault.kind for fault in told if fault} == {
        "unreadable image",
        "unreadable mask",
        "empty mask",
        "mask of another size",
    }


def test_a_long_list_is_cut_and_complete_in_faults(tmp_path: Path) -> None:
    faults = [Fault("missing mask", f"{number}.jpg") for number in range(53)] + [Fault("empty mask", "x.png", "why")]
    error = FaultsError(faults)
    assert error.faults == faults
    lines = str(error).splitlines()
    assert len(lines) == 1 + (1 + 20 + 1) + (1 + 1)
    assert "54 faults" in lines[0] and "missing mask (53)" in lines[1] and "33 more" in lines[22]
    assert lines[-1] == "  x.png (why)"
