"""data/benchmarks: class folders, and the listing of files."""

from pathlib import Path

import pytest
from PIL import Image

from relevit.data.benchmarks import class_folders
from relevit.data.listing import Paths
from relevit.errors import UserError


def save(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 7), (grey,) * 3).save(path)


def test_labels_are_folders_in_sorted_order(tmp_path: Path) -> None:
    for grey, name in enumerate(["dog/1.png", "cat/deep/2.png", "cat/1.png", "ant/7.png"]):
        save(tmp_path / name, grey)
    (tmp_path / "bear").mkdir()
    (tmp_path / "notes.txt").write_text("beside the folders")
    (tmp_path / "cat" / "index.csv").write_text("beside the images")
    data = class_folders(tmp_path)
    assert data.class_names == ["ant", "cat", "dog"] and list(data.groups) == ["ant", "cat", "cat", "dog"]
    assert [path.relative_to(tmp_path).as_posix() for path in data.paths] == [
        "ant/7.png",
        "cat/1.png",
        "cat/deep/2.png",
        "dog/1.png",
    ]
    assert [(item.image.getpixel((0, 0))[0], item.name) for item in data] == [
        (3, "ant/7.png"),
        (2, "cat/1.png"),
        (1, "cat/deep/2.png"),
        (0, "dog/1.png"),
    ]
    assert all(item.label == -1 and item.mask is None for item in data)


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no class folders with images"):
        class_folders(tmp_path)
    save(tmp_path / "flat.png", 3)
    with pytest.raises(UserError, match="no class folders with images"):
        class_folders(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        class_folders(tmp_path / "nothing")


def test_files_are_in_the_order_of_names_whatever_the_disks(tmp_path: Path) -> None:
    names = [f"{number:02d}.png" for number in range(11)]
    for name in names:
        save(tmp_path / "up" / name, 1)
    for name in reversed(names):
        save(tmp_path / "down" / name, 1)
    data = class_folders(tmp_path)
    assert list(data.names) == [f"{folder}/{name}" for folder in ("down", "up") for name in names]


def test_what_archives_and_systems_leave_behind_is_no_class(tmp_path: Path) -> None:
    for name in ("cat/1.png", "__MACOSX/1.png", ".trash/1.png", "cat/.1.png", "cat/__MACOSX/1.png"):
        save(tmp_path / name, 1)
    data = class_folders(tmp_path)
    assert data.class_names == ["cat"] and list(data.names) == ["cat/1.png"]


def test_compact_paths_are_a_sequence(tmp_path: Path) -> None:
    names = ["b/ä.png", "a/1.png", "c/\udcff.png"]  # the last is no UTF-8 on the disk
    paths = Paths(tmp_path, names)
    assert list(paths) == [tmp_path / name for name in names] and len(paths) == 3
    assert paths[-1] == tmp_path / names[2] and paths[0:2] == [tmp_path / names[0], tmp_path / names[1]]
    assert list(paths.names) == names and paths.names[-3] == names[0]
    for index in (3, -4):
        with pytest.raises(IndexError):
            paths[index]
