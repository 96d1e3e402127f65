"""Rows that another distribution adds to a table by an entry point."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from relevit.data.annotations import FORMATS, list_masks
from relevit.data.benchmarks import BENCHMARKS
from relevit.data.open import one_of
from relevit.errors import UserError
from relevit.extensions import Table


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution `others-maps` that is found as an installed one is; its entry points are in entry_points.txt."""
    folder = tmp_path / "others_maps-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: others-maps\nVersion: 1.0\n")
    (tmp_path / "others_maps.py").write_text("ROW = 'theirs'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "others_maps", raising=False)
    return folder


def declare(folder: Path, *lines: str) -> None:
    (folder / "entry_points.txt").write_text("\n".join(["[relevit.rows]", *lines]) + "\n")


def test_a_table_has_rows_of_others_after_its_own(installed: Path) -> None:
    declare(installed, "second = others_maps:ROW", "first = others_maps:ROW")
    table = Table("rows", {"own": "ours"})
    assert table["own"] == "ours" and "second" in table and "third" not in table
    assert "others_maps" not in sys.modules  # loaded when its row is asked for
    assert list(table) == ["own", "first", "second"] and len(table) == 3
    assert table["second"] == "theirs" and list(table) == ["own", "first", "second"] and len(table) == 3
    with pytest.raises(KeyError):
        table["third"]


def test_a_row_that_cannot_be_loaded_names_its_owner(installed: Path) -> None:
    declare(installed, "first = others_maps:NOTHING")
    with pytest.raises(UserError, match=r"'first' of others-maps \(rows\) could not be loaded: .*NOTHING"):
        Table("rows", {"own": "ours"})["first"]


def test_a_name_is_given_once(installed: Path) -> None:
    declare(installed, "own = others_maps:ROW")
    table = Table("rows", {"own": "ours"})
    assert table["own"] == "ours"
    with pytest.raises(UserError, match="others-maps adds 'own' to rows, which is there already"):
        list(table)


def test_other_tables_are_left_alone(installed: Path) -> None:
    declare(installed, "first = others_maps:ROW")
    assert list(Table("columns", {})) == []


def test_a_program_may_set_rows_of_its_own(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(installed, "first = others_maps:ROW")
    table = Table("rows", {"own": "ours"})
    with monkeypatch.context() as change:
        change.setitem(table, "own", "mine")
        change.setitem(table, "new", "mine too")
        assert dict(table) == {"own": "mine", "new": "mine too", "first": "theirs"}
    assert dict(table) == {"own": "ours", "first": "theirs"}


def test_benchmarks_and_mask_formats_of_others_are_found(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "others_maps.py").write_text(
        "from relevit.data.annotations import Listing\n"
        "from relevit.data.benchmarks.class_folders import class_folders\n"
        "from relevit.data.benchmarks.table import Benchmark\n"
        "ROW = Benchmark(('pets',), lambda root, protocol: {'pets': lambda: class_folders(root, 'pets')})\n"
        "def read(source, images, class_list):\n"
        "    return Listing([], [], ['read by another'])\n"
    )
    lines = ["[relevit.benchmarks]", "pets = others_maps:ROW", "[relevit.annotations]", "theirs = others_maps:read"]
    (installed / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "data/Pets/cat").mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(tmp_path / "data/Pets/cat/1.png")
    for table in (BENCHMARKS, FORMATS):
        vars(table).pop("added", None)
    try:
        name, images = one_of(tmp_path / "data")
        assert name == images.name == "pets" and list(images.names) == ["cat/1.png"]
        with pytest.raises(UserError, match=r"no masks of the format theirs \(read by another"):
            list_masks("theirs", tmp_path / "data")
    finally:
        for table in (BENCHMARKS, FORMATS):
            vars(table).pop("added", None)
