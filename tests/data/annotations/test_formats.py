"""Masks in everyone's own formats, read from small trees in the exact layouts, and what is wrong with them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mask_trees import HEIGHT, WIDTH, class_ids, imagenet_s, kinds, names, palette, picture, rectangle, save, wnids
from relevit.data.annotations import FORMATS, MERGED, FaultyMaskError, list_masks
from relevit.data.annotations.arrays import read_array
from relevit.data.annotations.imagenet_s import read_imagenet_s
from relevit.data.annotations.png import read_png
from relevit.data.annotations.published import read_published
from relevit.errors import UserError

# ImageNet-S


def test_class_ids_are_red_and_256_green(tmp_path: Path) -> None:
    mask, ignore = rectangle(0), np.zeros((HEIGHT, WIDTH), dtype=bool)
    ignore[-1, 3:] = True
    path = save(tmp_path / "a.png", class_ids(mask, 700, ignore))
    assert np.asarray(Image.open(path))[mask][0].tolist() == [700 - 512, 2, 0]
    found = read_imagenet_s(path, 700)
    assert np.array_equal(found.mask, mask) and np.array_equal(found.ignore, ignore)
    assert read_imagenet_s(save(tmp_path / "b.png", class_ids(mask, 255)), 255).ignore is None


def test_faulty_ids_are_named(tmp_path: Path) -> None:
    two = class_ids(rectangle(0), 7)
    two[0, :5] = (300 - 256, 1, 0)
    with pytest.raises(FaultyMaskError, match=r"ä b\.png.*7, 300.*nine is 9") as caught:
        read_imagenet_s(save(tmp_path / "nine" / "ä b.png", two), 9)
    assert caught.value.fault.kind == "several objects in one mask"
    with pytest.raises(FaultyMaskError, match=r"c\.png.*the id 8, nine is 9") as caught:
        read_imagenet_s(save(tmp_path / "nine" / "c.png", class_ids(rectangle(0), 8)), 9)
    assert caught.value.fault.kind == "wrong class id"


def test_imagenet_s_without_its_merged_classes(tmp_path: Path) -> None:
    folders = wnids(23)
    root = imagenet_s(tmp_path, folders, 2)
    listing = list_masks("imagenet-s", root, class_list=folders)
    expected = [f"{name}/{name}_{n}.JPEG" for name in folders if name not in MERGED for n in (8, 9)]
    assert names(listing) == expected and len(expected) == 36
    assert listing.faults == [] and "5 merged classes" in listing.notes[-1]
    place = folders.index(listing.entries[4].class_name)
    entry = listing.entries[4]
    assert np.array_equal(entry.read().mask, rectangle(10 * place)) and entry.read().ignore.sum() == 2 * WIDTH
    assert entry.image == root / "train-semi" / entry.name
    # the folder of masks itself, and pictures of an ImageNet train folder
    (root / "train-semi").rename(tmp_path / "train")
    again = list_masks("imagenet-s", root / "train-semi-segmentation", tmp_path / "train", folders)
    assert names(again) == expected
    with pytest.raises(UserError, match="--images"):
        list_masks("imagenet-s", root)


def test_official_ids_come_from_the_list_of_all_wnids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five of the merged wnids have folders: they are counted, though they are left out."""
    monkeypatch.setattr("relevit.data.annotations.imagenet_s.CLASSES", 23)
    folders = wnids(23)
    root = imagenet_s(tmp_path, folders, 1)
    (tmp_path / "all.txt").write_text("\n".join(reversed(folders)) + "\n\n")
    for entry in list_masks("imagenet-s", root, None, tmp_path / "all.txt").entries:
        entry.read()
    other = sorted({*folders[:22], "n00000001"})  # as many, but not those: all ids are one more
    for entry in list_masks("imagenet-s", root, class_list=other).entries:
        number = folders.index(entry.class_name) + 1
        with pytest.raises(FaultyMaskError, match=f"the id {number}, {entry.class_name} is {number + 1}"):
            entry.read()


@pytest.mark.parametrize("total", [23, 919])
def test_a_shorter_list_is_a_choice_of_classes(total: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids are those of the whole tree, or where folders are missing compared among the masks."""
    monkeypatch.setattr("relevit.data.annotations.imagenet_s.CLASSES", total)
    folders = wnids(23)
    root = imagenet_s(tmp_path, folders, 2)
    some = [name for name in folders if name not in MERGED][2::3]
    last = root / f"train-semi-segmentation/{some[-1]}/{some[-1]}_9.png"
    save(last, class_ids(rectangle(0), 3))
    listing = list_masks("imagenet-s", root, class_list=some)
    assert [entry.class_name for entry in listing.entries] == [name for name in some for _ in range(2)]
    assert listing.faults == [] and any("--class-list" in note for note in listing.notes) == (total == 919)
    for entry in listing.entries[:-1]:
        entry.read()
    with pytest.raises(FaultyMaskError, match=f"the id 3, {some[-1]} is {folders.index(some[-1]) + 1}"):
        listing.entries[-1].read()


def test_without_the_list_ids_are_compared_within_the_folders(tmp_path: Path) -> None:
    folders = wnids(11)
    first, second, third = (name for name in folders if name not in MERGED and name < "n02808440")
    ids = {name: 40 * place + 3 for place, name in enumerate(folders)}
    root = imagenet_s(tmp_path, folders, 3, ids)
    save(root / f"train-semi-segmentation/{first}/{first}_9.png", class_ids(rectangle(0), 4))
    listing = list_masks("imagenet-s", root)
    assert listing.faults == [] and "--class-list" in listing.notes[0]
    faults = {}
    for entry in listing.entries:
        try:
            entry.read()
        except FaultyMaskError as error:
            faults[entry.source.name] = error.fault.kind
    assert faults == {f"{first}_9.png": "wrong class id"}
    # two folders that were exchanged
    masks = root / "train-semi-segmentation"
    (masks / second).rename(masks / "x")
    (masks / third).rename(masks / second)
    (masks / "x").rename(masks / third)
    assert kinds(list_masks("imagenet-s", root))[third] == "wrong class id"


def test_a_tree_of_all_folders_tells_its_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relevit.data.annotations.imagenet_s.CLASSES", 13)
    folders = wnids(13)
    root = imagenet_s(tmp_path, folders, 1, {name: place + 2 for place, name in enumerate(folders)})
    listing = list_masks("imagenet-s", root)
    assert len(listing.notes) == 1
    with pytest.raises(FaultyMaskError, match="wrong class id"):
        listing.entries[0].read()


# Masks in class folders


def test_pairs_by_name_whatever_the_ending_and_the_accents(tmp_path: Path) -> None:
    save(tmp_path / "images/ein Käfer/2 ü.JPEG", picture(0))
    save(tmp_path / "masks/ein Ka\u0308fer/2 u\u0308.png", rectangle(0))
    save(tmp_path / "images/cow/deep/画 1.5.png", picture(1))
    save(tmp_path / "masks/cow/deep/画 1.5.PNG", rectangle(1))
    save(tmp_path / "images/cow/no mask.png", picture(2))
    listing = list_masks("png", tmp_path / "masks", tmp_path / "images")
    assert listing.faults == []
    assert names(listing) == ["cow/deep/画 1.5.png", "ein Ka\u0308fer/2 ü.JPEG"]
    assert np.array_equal(listing.entries[1].read().mask, rectangle(0))
    only = list_masks("png", tmp_path / "masks", tmp_path / "images", ["ein Käfer"])
    assert names(only) == ["ein Ka\u0308fer/2 ü.JPEG"]


def test_masks_beside_their_pictures(tmp_path: Path) -> None:
    save(tmp_path / "cow/a.jpg", picture(0))
    save(tmp_path / "cow/a.png", rectangle(0))
    (tmp_path / "link").mkdir()
    (tmp_path / "link/here").symlink_to(tmp_path)
    (tmp_path / "stray.png").write_bytes(b"a picture or a mask")
    spelled = [None, tmp_path, tmp_path / "cow" / "..", tmp_path / "link/here"]
    for images in spelled:
        listing = list_masks("png", tmp_path, images, ["cow"])
        assert names(listing) == ["cow/a.jpg"] and listing.faults == [], images


def test_faults_of_names(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    for name in ("cow/a", "cow/lonely", "emu/1", "cow/twice"):
        save(masks / f"{name}.png", rectangle(0))
    save(images / "cow/a.jpg", picture(0))
    save(images / "cow/twice.jpg", picture(0))
    save(images / "cow/twice.png", picture(0))
    save(masks / "stray.png", rectangle(0))
    (masks / "void").mkdir()
    (images / "emu").mkdir()
    listing = list_masks("png", masks, images)
    assert names(listing) == ["cow/a.jpg"]
    assert kinds(listing) == {
        "lonely.png": "missing image",
        "emu": "no images",
        "twice.png": "one mask for several images",
        "stray.png": "unknown class",
        "void": "no masks",
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255, 127, 128]], np.uint8), [[0, 1, 0, 1]]),
        (np.array([[0, 1, 1, 0]], np.uint8), [[0, 1, 1, 0]]),
        (np.array([[0, 65535, 32767, 32768]], np.uint16), [[0, 1, 0, 1]]),
        (np.array([[False, True, True, False]]), [[0, 1, 1, 0]]),
    ],
)
def test_plain_masks(values: np.ndarray, expected: list[list[int]], tmp_path: Path) -> None:
    found = read_png(save(tmp_path / "a.png", values))
    assert found.mask.tolist() == [[bool(value) for value in row] for row in expected] and found.ignore is None


def test_a_palette_is_read_by_index_and_its_void_is_ignored(tmp_path: Path) -> None:
    found = read_png(save(tmp_path / "a.png", palette(np.array([[0, 1, 3, 255]]))))
    assert found.mask.tolist() == [[False, True, True, False]]
    assert found.ignore.tolist() == [[False, False, False, True]]


def test_alpha(tmp_path: Path) -> None:
    alpha = (rectangle(0) * 255).astype(np.uint8)
    save(tmp_path / "cow/a.png", np.dstack([picture(0), alpha]))
    (tmp_path / "void").mkdir()
    listing = list_masks("alpha", tmp_path)
    assert names(listing) == ["cow/a.png"] and kinds(listing) == {"void": "no images"}
    assert np.array_equal(listing.entries[0].read().mask, rectangle(0))
    save(tmp_path / "cow/b.png", picture(0))
    with pytest.raises(UserError, match=r"b\.png has no alpha"):
        list_masks("alpha", tmp_path).entries[1].read()


# NumPy


def test_numpy_masks(tmp_path: Path) -> None:
    mask = rectangle(0)
    for name, array in {"a": mask, "b": mask.astype(np.int64), "c": mask * np.uint8(255), "d": mask * 0.5}.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert np.array_equal(read_array(tmp_path / f"{name}.npy").mask, mask), name
    np.savez(tmp_path / "e.npz", whatever=mask)
    assert np.array_equal(read_array(tmp_path / "e.npz").mask, mask)
    np.savez(tmp_path / "f.npz", one=mask, two=mask)
    np.save(tmp_path / "g.npy", np.zeros((3, 5, 7)))
    (tmp_path / "h.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:140])
    (tmp_path / "i.npz").write_bytes((tmp_path / "e.npz").read_bytes()[:140])
    (tmp_path / "j.npy").write_text("no array")
    for name in ("f.npz", "g.npy", "h.npy", "i.npz", "j.npy"):
        with pytest.raises(UserError, match=name):
            read_array(tmp_path / name)


def test_numpy_files_in_class_folders(tmp_path: Path) -> None:
    save(tmp_path / "images/cow/a.jpg", picture(0))
    (tmp_path / "masks/cow").mkdir(parents=True)
    np.save(tmp_path / "masks/cow/a.npy", rectangle(0))
    assert names(list_masks("numpy", tmp_path / "masks", tmp_path / "images")) == ["cow/a.jpg"]
    np.savez(tmp_path / "masks/cow/a.npz", rectangle(0))
    assert kinds(list_masks("numpy", tmp_path / "masks", tmp_path / "images")) == {
        "a.npz": "several masks for one image"
    }


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled_of_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[Malicious(tmp_path / "made")]]), allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy"):
        read_array(tmp_path / "a.npy")
    assert not (tmp_path / "made").exists()


# The published TokenCut masks


@pytest.mark.parametrize("kind", ["bool", "uint8", "int64", "float32", "float64"])
def test_published_masks(kind: str, tmp_path: Path) -> None:
    torch.save(rectangle(0).astype(kind), tmp_path / "a.pt")
    found = read_published(tmp_path / "a.pt")
    assert np.array_equal(found.mask, rectangle(0)) and found.left_out == ""


def test_published_masks_that_were_dropped(tmp_path: Path) -> None:
    torch.save(-1 * rectangle(0).astype(np.int64), tmp_path / "a.pt")
    assert read_published(tmp_path / "a.pt").left_out


def test_published_masks_in_the_words_of_numpy_1(tmp_path: Path) -> None:
    """Files of the time name numpy.core; the pickle of a file is made to."""
    torch.save(rectangle(0), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pt").read_bytes()
    assert b"numpy._core.multiarray" in content
    (tmp_path / "b.pt").write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert np.array_equal(read_published(tmp_path / "b.pt").mask, rectangle(0))


def test_anything_else_is_refused_and_does_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    torch.save(rectangle(0), tmp_path / "whole.pt")
    read_published(tmp_path / "whole.pt")
    before = set(torch.serialization.get_safe_globals())
    held: dict[str, Any] = {
        "evil": Malicious(made),
        "list": [rectangle(0), Malicious(made)],
        "objects": np.array([[Malicious(made)]]),
        "tensor": torch.zeros(5, 7),
        "dict": {"mask": rectangle(0)},
        "path": tmp_path,
    }
    for name, content in held.items():
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(UserError, match=rf"{name}\.pt is refused"):
            read_published(tmp_path / f"{name}.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Malicious(made)))
    (tmp_path / "short.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:300])
    torch.save(2 * rectangle(0).astype(int), tmp_path / "two.pt")
    torch.save(np.array([[-1, 1]]), tmp_path / "both.pt")
    for name in ("plain", "short", "two", "both"):
        with pytest.raises(UserError, match=rf"{name}\.pt"):
            read_published(tmp_path / f"{name}.pt")
    assert not made.exists()
    assert set(torch.serialization.get_safe_globals()) == before
    torch.load(tmp_path / "evil.pt", weights_only=False)  # the trap works
    assert made.exists()


def test_published_masks_beside_flat_pictures(tmp_path: Path) -> None:
    save(tmp_path / "pictures/n01440764_10026.JPEG", picture(0))
    masks = tmp_path / "masks/n01440764"
    masks.mkdir(parents=True)
    torch.save(rectangle(0), masks / "n01440764_10026_tokencut_bfs.pt")
    torch.save(rectangle(0), masks / "n01440764_10027_tokencut_bfs.pt")
    listing = list_masks("tokencut", tmp_path / "masks", tmp_path / "pictures")
    assert names(listing) == ["n01440764/n01440764_10026.JPEG"]
    assert kinds(listing) == {"n01440764_10027_tokencut_bfs.pt": "missing image"}
    assert np.array_equal(listing.entries[0].read().mask, rectangle(0))
    with pytest.raises(UserError, match="--images"):
        list_masks("tokencut", tmp_path / "masks")


# All


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="imagenet-s, png, alpha, coco, voc, numpy, tokencut"):
        list_masks("pngs", tmp_path)
    for name in FORMATS:
        with pytest.raises(UserError, match="no file or folder"):
            list_masks(name, tmp_path / "none")
    with pytest.raises(UserError, match="no folder"):
        list_masks("png", tmp_path, tmp_path / "none")
    with pytest.raises(UserError, match="holds no masks of the format png"):
        list_masks("png", tmp_path)
    (tmp_path / "list.txt").write_text("a\nb\na\n")
    with pytest.raises(UserError, match="a class twice"):
        list_masks("png", tmp_path, None, tmp_path / "list.txt")
