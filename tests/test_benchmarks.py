"""data/benchmarks.py: class folders."""

from pathlib import Path

import pytest
from PIL import Image

from relevit.data.benchmarks import ClassFolders
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
    data = ClassFolders(tmp_path)
    assert data.folders == ["ant", "cat", "dog"] and list(data.labels) == [0, 1, 1, 2]
    assert [path.relative_to(tmp_path).as_posix() for path in data.paths] == [
        "ant/7.png",
        "cat/1.png",
        "cat/deep/2.png",
        "dog/1.png",
    ]
    assert [(item.image.getpixel((0, 0))[0], item.label) for item in map(data.__getitem__, range(len(data)))] == [
        (3, 0),
        (2, 1),
        (1, 1),
        (0, 2),
    ]


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no class folders with images"):
        ClassFolders(tmp_path)
    save(tmp_path / "flat.png", 3)
    with pytest.raises(UserError, match="no class folders with images"):
        ClassFolders(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        ClassFolders(tmp_path / "nothing")
