"""Masks of any format as the folders that fine-tuning takes."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mask_trees import HEIGHT, WIDTH, class_ids, imagenet_s, palette, picture, rectangle, save, wnids
from relevit.data.annotations import MERGED, Entry, Foreground
from relevit.data.annotations.convert import Examined, convert_masks, examine
from relevit.data.folder import class_folder_samples
from relevit.errors import FaultsError, UserError


def files(root: Path) -> list[str]:
    """Every file but those that are hidden, by which the command knows its folder."""
    names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(".relevit/"))


def test_imagenet_s_is_what_fine_tuning_reads(tmp_path: Path) -> None:
    folders = wnids(11)
    root = imagenet_s(tmp_path, folders, 2)
    done = convert_masks("imagenet-s", root, tmp_path / "out", class_list=folders, workers=3)
    assert done[:5] == (12, 6, 6, {}, [])
    samples, _ = class_folder_samples(tmp_path / "out/images", tmp_path / "out/masks", ignore=tmp_path / "out/ignore")
    kept = [name for name in folders if name not in MERGED]
    assert samples.names == [f"{name}/{name}_{n}.JPEG" for name in kept for n in (8, 9)]
    for index, name in enumerate(name for name in kept for _ in range(2)):
        seed = 10 * folders.index(name) + index % 2
        sample = samples[index]
        assert np.array_equal(sample.mask, rectangle(seed).astype(np.float32))
        original = np.asarray(Image.open(root / f"train-semi/{sample.name}"))
        assert np.array_equal(np.asarray(sample.image), original)
        if index % 2 == 0:
            assert sample.ignore is not None and sample.ignore[-2:].all() and sample.ignore.sum() == 2 * WIDTH
        else:
            assert sample.ignore is None
    mask = next((tmp_path / "out/masks").rglob("*.png"))
    assert set(np.unique(np.asarray(Image.open(mask)))) == {0, 255}
    assert all(path.is_symlink() for path in (tmp_path / "out/images").rglob("*.JPEG"))


def test_in_the_papers_mode_ignored_pixels_are_background(tmp_path: Path) -> None:
    folders = wnids(7)
    root = imagenet_s(tmp_path, folders, 1)
    done = convert_masks("imagenet-s", root, tmp_path / "out", class_list=folders, protocol="paper")
    assert done.ignored == 0 and not (tmp_path / "out/ignore").exists()
    name = next(name for name in folders if name not in MERGED)
    mask = np.asarray(Image.open(tmp_path / f"out/masks/{name}/{name}_8.png"))
    assert np.array_equal(mask > 0, rectangle(10 * folders.index(name))) and not mask[-2:].any()


def plant(root: Path, folders: list[str]) -> dict[str, str]:
    """Six faults in an ImageNet-S tree; the kind of each by the file that it is told of."""
    masks, images = root / "train-semi-segmentation", root / "train-semi"
    first, second, third, *_ = (name for name in folders if name not in MERGED)
    mask = rectangle(0)
    two = class_ids(mask, folders.index(first) + 1)
    two[:2, :2] = (5, 3, 0)
    save(masks / f"{first}/{first}_8.png", two)
    save(masks / f"{first}/{first}_9.png", class_ids(mask[:-3], folders.index(first) + 1))
    save(masks / f"{first}/{first}_10.png", class_ids(mask, 917))
    (images / f"{second}/{second}_8.JPEG").unlink()
    whole = (images / f"{second}/{second}_9.JPEG").read_bytes()
    (images / f"{second}/{second}_9.JPEG").write_bytes(whole[: len(whole) // 2])
    (masks / f"{second}/{second}_10.png").write_text("no picture")
    for path in (images / third).iterdir():
        path.unlink()
    return {
        f"{first}_8.png": "several objects in one mask",
        f"{first}_9.png": "mask of another size",
        f"{first}_10.png": "wrong class id",
        f"{second}_8.png": "missing image",
        f"{second}_9.JPEG": "unreadable image",
        f"{second}_10.png": "unreadable mask",
        third: "no images",
    }


@pytest.mark.parametrize("workers", [0, 3])
def test_every_fault_is_listed_and_nothing_is_left_behind(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = wnids(11)
    monkeypatch.setattr("relevit.data.annotations.imagenet_s.CLASSES", 11)  # the list is that of all wnids
    root = imagenet_s(tmp_path, folders, 3)
    kinds = plant(root, folders)
    with pytest.raises(FaultsError) as caught:
        convert_masks("imagenet-s", root, tmp_path / "out", class_list=folders, workers=workers)
    assert {Path(fault.file).name: fault.kind for fault in caught.value.faults} == kinds
    assert all(name in str(caught.value) and kind in str(caught.value) for name, kind in kinds.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ImageNetS919"]
    done = convert_masks("imagenet-s", root, tmp_path / "out", class_list=folders, workers=workers, skip_bad=True)
    assert done.images == 6 * 3 - 3 * 3 and done.classes == 3 and len(done.faults) == len(kinds)


def test_small_masks_are_left_out_at_their_native_size(tmp_path: Path) -> None:
    for number, area in enumerate((519, 520, 521)):
        save(tmp_path / f"images/cow/{number}.jpg", picture(number, 67, 61))
        save(tmp_path / f"masks/cow/{number}.png", rectangle(number, 67, 61, area) * np.uint8(255))
    done = convert_masks("png", tmp_path / "masks", tmp_path / "out", images=tmp_path / "images", min_pixels=520)
    assert files(tmp_path / "out/masks") == ["cow/1.png", "cow/2.png"]
    assert done.left_out == {"of fewer than 520 pixels": 1} and done.faults == []
    assert convert_masks("png", tmp_path / "masks", tmp_path / "all", images=tmp_path / "images").images == 3
    with pytest.raises(UserError, match="Nothing is left"):
        convert_masks("png", tmp_path / "masks", tmp_path / "none", images=tmp_path / "images", min_pixels=999)
    assert not (tmp_path / "none").exists()


def test_an_empty_mask_is_a_fault(tmp_path: Path) -> None:
    save(tmp_path / "images/cow/a.jpg", picture(0))
    save(tmp_path / "masks/cow/a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(FaultsError, match="empty mask"):
        convert_masks("png", tmp_path / "masks", tmp_path / "out", images=tmp_path / "images")


def test_published_masks_that_were_dropped_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "masks/n01440764").mkdir(parents=True)
    for name, sign in (("a", 1), ("b", -1)):
        save(tmp_path / f"flat/{name}.JPEG", picture(0))
        torch.save(sign * rectangle(0).astype(int), tmp_path / f"masks/n01440764/{name}_tokencut_bfs.pt")
    done = convert_masks(
        "tokencut", tmp_path / "masks", tmp_path / "out", images=tmp_path / "flat", copy=True, min_pixels=0
    )
    assert files(tmp_path / "out") == ["images/n01440764/a.JPEG", "masks/n01440764/a.png"]
    assert list(done.left_out.values()) == [1] and done.faults == []
    assert not (tmp_path / "out/images/n01440764/a.JPEG").is_symlink()


def test_one_picture_of_two_classes(tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[2:5, 3:10], labels[7:9, :5] = 12, 20
    save(tmp_path / "VOC2012/SegmentationClass/2007 ü.png", palette(labels))
    save(tmp_path / "VOC2012/JPEGImages/2007 ü.jpg", picture(0))
    convert_masks("voc", tmp_path / "VOC2012", tmp_path / "out")
    assert files(tmp_path / "out") == [f"{part}/{name}/2007 ü.{end}" for part, end in (("images", "jpg"), ("masks", "png")) for name in ("dog", "tvmonitor")]  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/dog/2007 ü.png")) > 0, labels == 12)


def test_a_turned_jpeg_is_told_of(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "images/cow/a.jpg", picture(0), exif=exif)
    save(tmp_path / "masks/cow/a.png", rectangle(0))
    with pytest.raises(FaultsError, match=f"{WIDTH} x {HEIGHT}, its image .* {HEIGHT} x {WIDTH} upright.*EXIF"):
        convert_masks("png", tmp_path / "masks", tmp_path / "out", images=tmp_path / "images")


def test_masks_are_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def watched(entry: Entry, least: int) -> Examined:
        found = examine(entry, least)
        assert isinstance(found, Foreground)
        planes.extend(weakref.ref(plane) for plane in found[:2])
        return found

    monkeypatch.setattr("relevit.data.annotations.convert.examine", watched)
    root = imagenet_s(tmp_path, wnids(12), 1)
    done = convert_masks(
        "imagenet-s",
        root,
        tmp_path / "out",
        progress=lambda count, total: alive.append(sum(plane() is not None for plane in planes)),
    )
    assert done.images == 7 and done.ignored == 7 and len(planes) == 14
    assert max(alive) <= 2  # those of one image


def test_the_folder_of_pictures_is_not_written_into(tmp_path: Path) -> None:
    save(tmp_path / "images/cow/a.jpg", picture(0))
    save(tmp_path / "masks/cow/a.png", rectangle(0))
    (tmp_path / "link").symlink_to(tmp_path / "images")
    for out in (tmp_path / "images/out", tmp_path / "link/deep/out", tmp_path / "x/../images/out"):
        with pytest.raises(UserError, match=r"lies in the folder of pictures .*--out"):
            convert_masks("png", tmp_path / "masks", out, images=tmp_path / "images")
    assert files(tmp_path / "images") == ["cow/a.jpg"]
    convert_masks("png", tmp_path / "masks", tmp_path / "images-out", images=tmp_path / "images")


def test_published_masks_beside_pictures_of_native_size(tmp_path: Path) -> None:
    """The masks' short side is 224; the 520 pixels are those of the picture, and the default for automatic masks."""
    (tmp_path / "masks/n01440764").mkdir(parents=True)
    sizes = {"a": (331, 449), "b": (101, 71), "c": (331, 449), "d": (331, 461)}
    shapes = {"a": (224, 303), "b": (319, 224), "c": (224, 303), "d": (224, 303)}  # the last has another aspect ratio
    squares = {"a": 30, "b": 60, "c": 14, "d": 30}
    masks = {}
    for name, (height, width) in sizes.items():
        save(tmp_path / f"flat/{name}.JPEG", picture(0, height, width))
        mask = np.zeros(shapes[name], dtype=bool)
        mask[20 : 20 + squares[name], 70 : 70 + squares[name]] = True
        torch.save(mask, tmp_path / f"masks/n01440764/{name}_tokencut_bfs.pt")
        rows, columns = (
            np.floor((np.arange(now) + 0.5) * before / now).astype(int)
            for now, before in zip((height, width), mask.shape, strict=True)
        )
        masks[name] = mask[np.ix_(rows, columns)]
    usual = {"images": tmp_path / "flat", "skip_bad": True}
    done = convert_masks("tokencut", tmp_path / "masks", tmp_path / "out", **usual)
    # 60 x 60 pixels of a picture that was made larger are fewer than 520 of its own; 14 x 14 never were as many
    assert (masks["a"].sum() > 520, masks["b"].sum() < 520) == (True, True)
    assert files(tmp_path / "out/masks") == ["n01440764/a.png"]
    assert done.left_out == {"of fewer than 520 pixels": 2}
    assert [(Path(fault.file).name, fault.kind) for fault in done.faults] == [
        ("d_tokencut_bfs.pt", "mask of another size")
    ]
    convert_masks("tokencut", tmp_path / "masks", tmp_path / "all", min_pixels=0, **usual)
    for name in "abc":
        written = np.asarray(Image.open(tmp_path / f"all/masks/n01440764/{name}.png"))
        assert np.array_equal(written > 0, masks[name]), name


def test_nothing_is_overwritten_and_sources_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = save(tmp_path / "images/cow/a.jpg", picture(0))
    save(tmp_path / "masks/cow/a.png", rectangle(0))
    image.chmod(0o444)
    before = image.stat().st_mtime_ns
    monkeypatch.chdir(tmp_path)  # links are whole paths, whatever the caller gave
    convert_masks("png", "masks", "deep/out", images="images")
    assert (tmp_path / "deep/out/images/cow/a.jpg").resolve() == image and image.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="there already"):
        convert_masks("png", "masks", "deep/out", images="images")
