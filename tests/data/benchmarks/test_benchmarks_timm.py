"""data/benchmarks: tar files, and data sets that timm opens by a string."""

from __future__ import annotations

import io
import logging
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmark_trees import Classifier, save
from image_sets import opened
from relevit.data.benchmarks import find_benchmarks, timm_sets
from relevit.data.sets import ImageSet, StreamSet
from relevit.errors import UserError


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 7), (grey,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def only(opened: dict[str, Any]) -> Any:
    assert len(opened) == 1
    return next(iter(opened.values()))


def rows(data: ImageSet, model: Classifier, class_map: Any = None) -> dict[str, tuple[str, tuple[int, ...], int]]:
    answers = data.right_classes(model, class_map)
    items = zip(data.groups, data, answers, strict=True)
    return {item.name: (group, right, item.image.getpixel((2, 3))[0]) for group, item, right in items}


FILES = {
    "set/n15075141/b.png": png(1),
    "set/n01440764/a.png": png(2),
    "set/n15075141/c.PNG": png(3),
    "set/n01440764/._a.png": b"left by a Mac",
    "set/notes.txt": b"notes",
}
WANTED = {
    "set/n01440764/a.png": ("n01440764", (0,), 2),
    "set/n15075141/b.png": ("n15075141", (999,), 1),
    "set/n15075141/c.PNG": ("n15075141", (999,), 3),
}


def test_a_tar_file_is_read_in_place(tmp_path: Path) -> None:
    found = opened(tar(tmp_path / "mine.tar", FILES))
    assert list(found) == ["mine"] and len(found["mine"]) == 3
    assert rows(found["mine"], Classifier(1000)) == WANTED and found["mine"].competing_classes(Classifier(1000)) is None
    assert rows(found["mine"], Classifier(7), {"n01440764": 5, "n15075141": 2})["set/n01440764/a.png"][1] == (5,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.tar"]


def test_a_folder_of_tar_files_has_a_class_each(tmp_path: Path) -> None:
    tar(tmp_path / "tars" / "n15075141.tar", {"b.png": png(1), "c.png": png(3)})
    tar(tmp_path / "tars" / "n01440764.tar", {"b.png": png(2)})
    wanted = {"n01440764.tar/b.png": ("n01440764", (0,), 2), "n15075141.tar/b.png": ("n15075141", (999,), 1), "n15075141.tar/c.png": ("n15075141", (999,), 3)}  # fmt: skip
    assert rows(only(opened(tmp_path / "tars")), Classifier(1000)) == wanted
    assert rows(find_benchmarks(tmp_path / "tars").found[0].open(), Classifier(1000)) == wanted


def test_tar_files_in_a_tar_file(tmp_path: Path) -> None:
    inner = {name: tar(tmp_path / f"{name}.tar", {"x.png": png(grey), "y.png": png(grey + 1)}).read_bytes() for name, grey in (("n15075141", 10), ("n01440764", 20))}  # fmt: skip
    outer = tar(tmp_path / "outer" / "all.tar", {f"{name}.tar": content for name, content in inner.items()})
    assert rows(only(opened(outer)), Classifier(1000)) == {
        "n01440764.tar/x.png": ("n01440764", (0,), 20),
        "n01440764.tar/y.png": ("n01440764", (0,), 21),
        "n15075141.tar/x.png": ("n15075141", (999,), 10),
        "n15075141.tar/y.png": ("n15075141", (999,), 11),
    }


def test_class_names_that_say_nothing_need_as_many_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = only(opened(tar(tmp_path / "a.tar", {"cat/1.png": png(1), "dog/1.png": png(2)})))
    assert data.right_classes(Classifier(2)) == [(0,), (1,)]
    assert "matched by order alone (cat is class 0, dog is class 1)" in " ".join(capsys.readouterr().err.split())
    assert data.right_classes(Classifier(5, ["dog", "ant", "cat", "eel", "fox"])) == [(2,), (0,)]
    with pytest.raises(
        UserError, match=r"a\.tar has 2 classes that do not fit the model's 3 classes \(cat: .*class map"
    ):
        data.right_classes(Classifier(3))
    with pytest.raises(UserError, match="dog"):
        data.right_classes(Classifier(2, ["cat", "cow"]))


@pytest.mark.parametrize(
    ("files", "message"),
    [({"x.png": png(1)}, "no images in class folders"), ({"a/x.png": png(1), "y.png": png(2)}, "no images in class folders"), ({"a/notes.txt": b""}, "cannot be read as tar files"), (None, "cannot be read as tar files")],
)  # fmt: skip
def test_unusable_tar_files(files: dict[str, bytes] | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"no archive") if files is None else tar(path, files)
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert "a.tar" in str(caught.value)


def test_an_unreadable_image_in_a_tar_file_is_named(tmp_path: Path) -> None:
    data = only(opened(tar(tmp_path / "a.tar", {"a/1.png": b"broken", "a/2.png": png(5), "a/3.png": png(6)[:-30]})))
    for index, name in ((0, "a/1.png"), (2, "a/3.png")):
        with pytest.raises(UserError, match=f"a\\.tar/{name}"):
            data[index]
    assert data[1].image.getpixel((0, 0)) == (5, 5, 5)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_in_a_tar_file_are_passed_over(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (5, 7), (90,) * 3).save(content, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x05\x01")
    data = only(opened(tar(tmp_path / "a.tar", {"a/1.jpg": content.getvalue()})))
    assert data[0].image.size == (5, 7)


def test_torchvisions_folder_by_its_string(tmp_path: Path) -> None:
    save(tmp_path / "n15075141" / "a.png", 1)
    save(tmp_path / "n01440764" / "a.png", 2)
    data = only(opened(f"torch/image_folder?root={tmp_path}"))
    assert rows(data, Classifier(1000)) == {"000000000": ("n01440764", (0,), 2), "000000001": ("n15075141", (999,), 1)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torch/cifar10", r"needs the folder of its files, torch/cifar10\?root=FOLDER"),
        ("wds/mine?root=/no/folder", "there is no folder /no/folder"),
        ("torch/nothing?root={root}", "cannot be opened .*nothing"),
        ("torch/cifar10?root={root}", "cannot be opened"),
        ("hfds/mine?split", "options after the question mark"),
    ],
)
def test_strings_that_cannot_be_opened(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        opened(text.format(root=tmp_path))


@pytest.mark.parametrize(("text", "module", "package"), [("hfds/mine", "datasets", "datasets"), ("hfids/mine", "datasets", "datasets"), ("tfds/mine", "tensorflow_datasets", "tensorflow-datasets")])  # fmt: skip
def test_a_missing_package_is_named(
    text: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"{text} needs a package that is not installed: pip install {package}"):
        opened(text)
    assert capsys.readouterr().out == ""


def test_a_missing_webdataset_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.data.readers.reader_wds.wds", None)
    with pytest.raises(UserError, match="pip install webdataset"):
        opened(f"wds/mine?root={tmp_path}")


class HubReader:
    """As timm's reader of the hub's data sets: pairs of an open file and a label."""

    def __init__(self, contents: list[bytes], labels: list[int], classes: dict[str, int]) -> None:
        self.contents, self.labels, self.class_to_idx = contents, labels, classes

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        return io.BytesIO(self.contents[index]), self.labels[index]

    def iter_targets(self) -> Any:
        return iter(self.labels)


def hub(monkeypatch: pytest.MonkeyPatch, reader: Any) -> list[Any]:
    calls: list[Any] = []

    def create(name: str, **options: Any) -> Any:
        calls.append((name, options))
        return SimpleNamespace(reader=reader)

    monkeypatch.setattr("timm.data.create_dataset", create)
    return calls


def test_a_hub_data_set_image_by_image(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    reader = HubReader([png(1), b"broken", png(3)], [1, 0, 1], {"n01440764": 0, "n15075141": 1})
    calls = hub(monkeypatch, reader)
    found = opened("hfds/owner/Name?split=test&root=/data&trust_remote_code=false&input_key=img")
    assert calls == [
        ("hfds/owner/Name", {"split": "test", "root": "/data", "trust_remote_code": False, "input_key": "img"})
    ]
    assert list(found) == ["hfds/owner/Name"]
    data = only(found)
    assert data.right_classes(Classifier(1000)) == [(999,), (0,), (999,)] and data[2].image.getpixel((0, 0)) == (
        3,
        3,
        3,
    )
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="image 1 of hfds/owner/Name"):
        data[1]  # where timm's own data set would give the next image under this one's number


def test_labels_without_names_are_class_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, HubReader([png(1)] * 3, [4, 0, 2], {}))
    data = only(opened("hfds/x"))
    assert data.right_classes(Classifier(7)) == [(4,), (0,), (2,)]
    with pytest.raises(UserError, match="has the label 4, but the model knows the classes 0 to 3"):
        data.right_classes(Classifier(4))


@pytest.mark.parametrize("label", [-1, None, [1, 2]])
def test_a_set_without_labels_is_refused(label: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, HubReader([png(1)] * 2, [0, label], {}))
    with pytest.raises(UserError, match=r"image 1 of hfds/x has the label .*no class index"):
        opened("hfds/x")


class Stream:
    """As timm's reader of shards: pairs, in order, and a share of the shards for each process."""

    def __init__(self, pairs: list[Any], num_samples: int) -> None:
        self.pairs, self.num_samples = pairs, num_samples
        self.dist_rank, self.dist_num_replicas = 1, 2

    def __iter__(self) -> Any:
        for pair in self.pairs[self.dist_rank :: self.dist_num_replicas]:
            if isinstance(pair, Exception):
                raise pair
            yield pair


def stream(monkeypatch: pytest.MonkeyPatch, reader: Stream) -> StreamSet:
    class Set:
        def __init__(self, reader: Stream) -> None:
            self.reader = reader

        def __iter__(self) -> Any:
            return iter(self.reader)

    monkeypatch.setattr(timm_sets, "_create", lambda *_: Set(reader))
    return only(opened("hfids/x"))


def test_a_stream_is_read_whole_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(Image.new("L", (3, 2), grey), np.int64(grey * 7)) for grey in range(5)]
    data = stream(monkeypatch, Stream(pairs, 5))
    assert isinstance(data, StreamSet) and data.length == 5 and data.competing_classes(Classifier(3)) is None
    for _ in range(2):
        items = list(data)
        assert [(item.name, item.label) for item in items] == [(f"{n:09d}", n * 7) for n in range(5)]
        assert [(item.image.mode, item.image.getpixel((0, 0))) for item in items] == [
            ("RGB", (n,) * 3) for n in range(5)
        ]


def test_a_stream_of_unknown_length_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(Image.new("RGB", (3, 2)), 1), ValueError("a shard is cut short")]
    data = stream(monkeypatch, Stream(pairs, 0))
    assert data.length is None
    with pytest.raises(UserError, match=r"hfids/x cannot be read beyond 1 images \(a shard is cut short\)"):
        list(data)
