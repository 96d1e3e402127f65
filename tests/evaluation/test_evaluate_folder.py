"""The results' folder: rows as files, going on after an interruption, what is never mixed, full disks, several processes."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from grey_model import CONFIG, VIEW, Grey, grey_pictures
from relevit.data.sets import StreamSet
from relevit.errors import UserError
from relevit.evaluation import evaluate, read_predictions, run
from relevit.evaluation.accuracy.predictions import COLUMNS
from relevit.evaluation.folder import _folder
from relevit.evaluation.rows import part_name, read_part
from relevit.models.view import evaluation_view
from rows_on_disk import files, small_shards, stop_after


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """37 images of three classes, in shards of 5."""
    small_shards(monkeypatch, 5)
    return grey_pictures(tmp_path / "data")


def test_figures_are_those_of_the_rows(data: Path, tmp_path: Path) -> None:
    (data / "7" / "04.png").write_bytes(b"broken")
    out = tmp_path / "out"
    report = evaluate({"one": (Grey(), VIEW), "two": (Grey(0.1), VIEW)}, {"mine": data}, out=out)
    folder = out / "predictions" / "mine" / "one"
    assert sorted(path.name for path in folder.iterdir()) == [part_name(i, 8, "parquet") for i in range(8)]
    table = pq.read_table(folder).to_pydict()  # any reader of Parquet takes the folder
    assert table["index"] == list(range(37)) and table["image"][24 + 4] == "7/04.png"  # 11, 3, 7 in sorted order
    hit = [each for each in table["hit1"] if each is not None]
    saved = json.loads((out / "results.json").read_text())["benchmarks"]["mine"]
    assert saved["models"]["one"]["r1"] == pytest.approx(100 * np.mean(hit), abs=1e-3) and len(hit) == 36
    assert saved["unreadable"][0]["file"] == "7/04.png" and "04.png" in saved["unreadable"][0]["reason"]
    rows = read_predictions(folder)
    assert rows.unreadable[0].place == 28 and rows.unreadable[0].group == "7" and len(rows) == 36
    assert report.predictions["mine"]["one"].keys == rows.keys
    assert saved["models"]["two"]["against"]["model"] == "one"


def test_csv_has_the_same_figures(data: Path, tmp_path: Path) -> None:
    figures = {}
    for format in ("parquet", "csv"):
        report = evaluate((Grey(), VIEW), {"mine": data}, out=tmp_path / format, format=format)
        figures[format] = report.to_dict()
    assert figures["csv"] == figures["parquet"]
    lines = (tmp_path / "csv" / "predictions" / "mine" / "model" / part_name(0, 8, "csv")).read_text().splitlines()
    assert lines[0].startswith("index,image,class,object,answers,top5") and len(lines) == 6
    assert lines[1].startswith("0,11/00.png,11,,11,11 ")


@pytest.mark.slow
def test_a_run_killed_at_any_shard_goes_on_to_the_same_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"one": (Grey(), VIEW), "two": (Grey(0.3), VIEW)}
    evaluate(models, {"a": data, "b": data}, out=tmp_path / "whole", batch_size=3)
    expected = files(tmp_path / "whole")
    for last in range(0, 2 * 2 * 8, 3):
        out = tmp_path / f"out{last}"
        with monkeypatch.context() as patch:
            stop_after(last, patch)
            with pytest.raises(KeyboardInterrupt):
                evaluate(models, {"a": data, "b": data}, out=out, batch_size=3)
        parts = list(out.rglob("part-*"))
        assert len(parts) == last and not (out / "results.json").exists()
        before = {path: path.stat().st_mtime_ns for path in parts}
        nets = {"one": Grey(), "two": Grey(0.3)}
        evaluate({name: (net, VIEW) for name, net in nets.items()}, {"a": data, "b": data}, out=out, batch_size=3)
        assert {path: path.stat().st_mtime_ns for path in parts} == before  # nothing is done again
        assert files(out) == expected
        done = {name: sum(part.parent.name == name for part in parts) for name in nets}
        assert all(2 * 37 - 5 * done[name] <= net.seen <= 2 * 37 - 2 * done[name] for name, net in nets.items())


def test_a_second_call_does_nothing_another_model_is_done_alone(data: Path, tmp_path: Path) -> None:
    first, second = Grey(), Grey(0.3)
    evaluate({"one": (first, VIEW)}, {"mine": data}, out=tmp_path / "out")
    assert first.seen == 37
    report = evaluate({"one": (first, VIEW), "two": (second, VIEW)}, {"mine": data}, out=tmp_path / "out")
    assert first.seen == 37 and second.seen == 37 and report.comparisons["mine"]["two"].images == 37
    fresh = tmp_path / "fresh"
    evaluate({"one": (first, VIEW), "two": (second, VIEW)}, {"mine": data, "again": data}, out=fresh)
    assert files(fresh / "predictions" / "mine") == files(tmp_path / "out" / "predictions" / "mine")
    alone = evaluate({"two": (second, VIEW)}, {"mine": data}, out=tmp_path / "out")
    assert list(alone.accuracies["mine"]) == ["two"] and second.seen == 37 * 3
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert set(config["models"]) == {"one", "two"}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"protocol": "paper", "model": "vit"}, r"protocol was 'standard', now 'paper'"),
        ({"precision": "bf16"}, r"precision was 'float32', now 'bf16'"),
        ({"format": "csv"}, r"format was 'parquet', now 'csv'"),
        ({"model": Grey(0.7)}, r"model one has other weights [0-9a-f]+, now [0-9a-f]+"),
        ({"view": evaluation_view({**CONFIG, "std": (2.0,) * 3})}, r"model one has other view .*now"),
        ({"image": "3/20.png"}, r"benchmark mine has other images 37, now 38"),
        ({"bytes": "3/00.png"}, r"benchmark mine has other names and sizes [0-9a-f]+"),
    ],
)
def test_other_settings_weights_or_images_are_refused(
    data: Path, tmp_path: Path, change: dict, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    evaluate({"one": (Grey(), VIEW)}, {"mine": data}, out=out)
    before = files(out)
    for kind in ("image", "bytes"):
        if kind in change:
            Image.new("RGB", (17, 19)).save(data / change[kind])
    net = Grey() if change.get("model", "vit") == "vit" else change["model"]
    if "protocol" in change:
        monkeypatch.setattr(run, "data_config", lambda model, protocol="standard": CONFIG)
    settings = {name: value for name, value in change.items() if name in ("protocol", "precision", "format")}
    with pytest.raises(UserError, match=rf"(?s){part}.*Choose another folder"):
        evaluate({"one": (net, change.get("view", VIEW))}, {"mine": data}, out=out, **settings)
    assert files(out) == before and net.seen == 0


def test_another_class_map_is_refused(data: Path, tmp_path: Path) -> None:
    """The rows tell what was right when they were written: with another class map, half of them would be of another truth."""
    out, first = tmp_path / "out", {"3": 3, "7": 7, "11": 11}
    evaluate({"one": (Grey(), VIEW)}, {"mine": data}, out=out)
    before = files(out)
    net = Grey()
    with pytest.raises(UserError, match=r"other classes are right for one on mine \(by the class map"):
        evaluate({"one": (net, VIEW)}, {"mine": data}, class_map={**first, "7": 5}, out=out)
    assert files(out) == before and net.seen == 0
    evaluate({"one": (net, VIEW)}, {"mine": data}, class_map=first, out=out)  # the same classes, said in another way
    assert net.seen == 0
    evaluate({"two": (Grey(0.5), VIEW)}, {"mine": data}, class_map={**first, "7": 5}, out=out)  # no rows yet
    with pytest.raises(UserError, match="other classes are right for two on mine"):
        evaluate({"one": (net, VIEW), "two": (Grey(0.5), VIEW)}, {"mine": data}, out=out)


def test_a_benchmark_without_readable_images_keeps_the_others(data: Path, tmp_path: Path) -> None:
    (tmp_path / "broken" / "3").mkdir(parents=True)
    (tmp_path / "broken" / "3" / "a.png").write_bytes(b"broken")
    sets = {"broken": tmp_path / "broken", "mine": data}
    report = evaluate({"one": (Grey(), VIEW)}, sets, set_a=["3"], out=tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(report.accuracies) == list(saved["benchmarks"]) == ["mine"]
    assert [key for key, _ in report.unreadable["broken"]] == ["3/a.png"]
    assert "a.png" in saved["unreadable"]["broken"]


def test_json_holds_no_nan_where_a_set_is_empty(data: Path, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    evaluate({"one": (Grey(), VIEW)}, {"mine": data}, set_a=["3", "7", "11"], out=tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=refuse)
    figures = saved["benchmarks"]["mine"]["models"]["one"]
    assert figures["rest"]["images"] == 0 and figures["rest"]["r1"] is None and figures["set_a"]["images"] == 37


def test_removing_outdated_rows_lifts_the_refusal(data: Path, tmp_path: Path) -> None:
    evaluate({"one": (Grey(), VIEW)}, {"mine": data}, out=tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "predictions" / "mine" / "one")
    report = evaluate({"one": (Grey(-1.0), VIEW)}, {"mine": data}, out=tmp_path / "out")
    assert report.accuracy().r1 == 0


def test_other_folders_are_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and was not begun by relevit evaluate"):
        evaluate((Grey(), VIEW), {"mine": data}, out=tmp_path / "out")
    with pytest.raises(UserError, match=r"mine\.txt is a file"):
        evaluate((Grey(), VIEW), {"mine": data}, out=tmp_path / "out" / "mine.txt")
    for content, part in (("{}", "was not begun by relevit evaluate"), ("{", "cannot be read")):
        (tmp_path / "out" / "config.json").write_text(content)
        with pytest.raises(UserError, match=part):
            evaluate((Grey(), VIEW), {"mine": data}, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "mine.txt"]


def test_a_full_disk_is_a_clear_error_with_nothing_half_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, left = os.fsync, [7]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="disk is full"):
        evaluate((Grey(), VIEW), {"mine": data}, out=tmp_path / "out")
    assert not torch.is_inference_mode_enabled()
    monkeypatch.setattr(os, "fsync", plain)
    left_behind = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert left_behind and not any(".tmp-" in path.name for path in left_behind)
    for path in left_behind:
        if path.suffix == ".parquet":
            assert len(read_part(path, COLUMNS)) == 5
    report = evaluate((Grey(), VIEW), {"mine": data}, out=tmp_path / "out")
    assert len(report.accuracy()) == 37


def test_rows_that_cannot_be_used_are_told(data: Path, tmp_path: Path) -> None:
    evaluate((Grey(), VIEW), {"mine": data}, out=tmp_path / "out")
    folder = tmp_path / "out" / "predictions" / "mine" / "model"
    part = folder / part_name(3, 8, "parquet")
    content = part.read_bytes()
    part.unlink()
    with pytest.raises(UserError, match="1 of 8 parts are missing"):
        read_predictions(folder)
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"part-00003-of-00008\.parquet cannot be read .*remove it"):
        read_predictions(folder)
    with pytest.raises(UserError, match="holds no predictions"):
        read_predictions(tmp_path)
    (tmp_path / "part-00000-of-00001.csv").write_text("index,image\n0,a.png\n")
    with pytest.raises(UserError, match="no column"):
        read_predictions(tmp_path)
    net = Grey()
    part.unlink()
    evaluate((net, VIEW), {"mine": data}, out=tmp_path / "out")
    assert net.seen == 5 and part.read_bytes() == content


def test_names_that_are_paths_become_folders() -> None:
    assert _folder("imagenet-c/fog/3", nested=True) == "imagenet-c/fog/3"
    assert _folder("runs/mine") == "runs%2Fmine" and _folder("/data/x", nested=True) == "%2Fdata%2Fx"
    assert _folder("../x", nested=True) == "%2E.%2Fx" and _folder("..") == "%2E." and _folder("a%2Fb") != _folder("a/b")
    long = ["/" + "x" * 300 + end for end in "ab"]
    assert len({_folder(name) for name in long}) == 2 and all(len(_folder(name)) <= 120 for name in long)


def test_a_stream_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import relevit.evaluation.batches as engine

    monkeypatch.setattr(engine, "STREAM", 5)
    stream = StreamSet(
        "wds/x", lambda: [(Image.new("RGB", (9, 9), (10 * (i % 7),) * 3), i % 7) for i in range(23)], None
    )
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            evaluate({"one": (Grey(), VIEW)}, {"s": stream}, out=tmp_path / "out")
    first, second = Grey(), Grey(0.3)
    evaluate({"one": (first, VIEW)}, {"s": stream}, out=tmp_path / "out")
    assert first.seen == 13
    names = [path.name for path in sorted((tmp_path / "out" / "predictions" / "s" / "one").iterdir())]
    assert names == [part_name(i, 5, "parquet") for i in range(5)]
    report = evaluate({"one": (first, VIEW), "two": (second, VIEW)}, {"s": stream}, out=tmp_path / "out")
    assert first.seen == 13 and second.seen == 23 and report.accuracies["s"]["two"].r1 == 100
    assert report.predictions["s"]["one"].keys == [f"{i:09d}" for i in range(23)]


def test_items_without_names_are_told_apart_by_what_they_show(tmp_path: Path) -> None:
    greys = [10 * label for label in (3, 5, 7, 11, 13)]
    pictures = [(np.full((8, 8, 3), grey, np.uint8), grey // 10) for grey in greys]
    model = {"one": (Grey(), VIEW)}
    evaluate(model, {"mine": pictures}, out=tmp_path / "out")
    net = Grey()
    again = evaluate({"one": (net, VIEW)}, {"mine": list(pictures)}, out=tmp_path / "out")
    assert net.seen == 0 and len(again.predictions["mine"]["one"]) == 5
    for place in (0, 2, 4):
        for other in ((pictures[place][0] ^ 1, pictures[place][1]), (pictures[place][0], 1)):
            changed = [*pictures[:place], other, *pictures[place + 1 :]]
            with pytest.raises(UserError, match="benchmark mine has other contents"):
                evaluate(model, {"mine": changed}, out=tmp_path / "out")
