"""The results' folder: rows as files, going on after an interruption, what is never mixed, full disks, several processes."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from relevit.data.sets import StreamSet
from relevit.errors import UserError
from relevit.evaluation import evaluate, read_predictions, run, shards
from relevit.evaluation.accuracy.predictions import Predictions, Unreadable, part_name, read_part, write_part
from relevit.evaluation.folder import ResultsFolder, _folder
from relevit.models.view import evaluation_view

CONFIG = {"input_size": (3, 8, 8), "mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear", "crop_pct": 1.0}
VIEW = evaluation_view(CONFIG)


class Grey(nn.Module):
    """Answers with the class whose number is the mean grey divided by 10; counts what it sees."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.num_classes, self.seen = 23, 0
        self.scale = nn.Parameter(torch.tensor([scale]))

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return -self.scale * (torch.arange(23) - 25.5 * images.mean(dim=(1, 2, 3))[:, None]).abs()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """37 images of three classes, in shards of 5."""
    monkeypatch.setattr(shards, "LEAST", 5)
    monkeypatch.setattr(shards, "MOST", 5)
    rng = np.random.default_rng(0)
    for name, count in {"3": 11, "7": 13, "11": 13}.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(10 * int(name) - 15, 10 * int(name) + 15, (9, 9, 3)).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "data" / name / f"{number:02d}.png")
    return tmp_path / "data"


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def some_rows(count: int = 7, objects: bool = True) -> Predictions:
    rng = np.random.default_rng(count)
    confidence = rng.random(count).astype(np.float32)
    confidence[:1] = np.nan
    return Predictions(
        [f'dir/{i}, "ü".png' for i in range(count)],
        np.array([f"n{i % 3}" for i in range(count)], dtype=str),
        [tuple(range(i % 4)) for i in range(count)],
        rng.integers(-1, 1000, (count, 5)).astype(np.int32),
        confidence,
        rng.random(count) < 0.5,
        rng.random(count) < 0.5,
        np.array([f"o{i % 2}" for i in range(count)], dtype=str) if objects else None,
        np.arange(count) * 2 + 1,
        [Unreadable(4, "x.png", "n1", "it is broken, says PIL"), Unreadable(0, "w.png", "n0", "gone")],
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("objects", [True, False])
@pytest.mark.parametrize("count", [7, 0])
def test_rows_come_back_as_they_were(tmp_path: Path, suffix: str, objects: bool, count: int) -> None:
    rows = some_rows(count, objects)
    write_part(tmp_path / f"part.{suffix}", rows)
    back = read_part(tmp_path / f"part.{suffix}")
    assert back.keys == rows.keys and back.answers == rows.answers and back.groups.tolist() == rows.groups.tolist()
    for name in ("top5", "confidence", "hit1", "hit5", "indices"):
        np.testing.assert_array_equal(getattr(back, name), getattr(rows, name))
        assert getattr(back, name).dtype == getattr(rows, name).dtype
    assert back.unreadable == sorted(rows.unreadable)
    if count and objects:
        assert back.objects is not None and rows.objects is not None and back.objects.tolist() == rows.objects.tolist()
    else:
        assert back.objects is None


def test_the_files_rows_are_in_the_benchmarks_order(tmp_path: Path) -> None:
    write_part(tmp_path / "part.parquet", some_rows())
    table = pq.read_table(tmp_path / "part.parquet").to_pydict()
    assert table["index"] == [0, 1, 3, 4, 5, 7, 9, 11, 13] and table["image"][3] == "x.png"
    assert table["fault"][3] == "it is broken, says PIL" and table["hit1"][3] is None and table["fault"][1] is None


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


def test_a_run_killed_at_any_shard_goes_on_to_the_same_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"one": (Grey(), VIEW), "two": (Grey(0.3), VIEW)}
    evaluate(models, {"a": data, "b": data}, out=tmp_path / "whole", batch_size=3)
    expected = files(tmp_path / "whole")
    plain, writes = ResultsFolder.write, 2 * 2 * 8
    for last in range(0, writes, 3):
        out, left = tmp_path / f"out{last}", [last]

        def write(self: ResultsFolder, *arguments: object, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            plain(self, *arguments)

        monkeypatch.setattr(ResultsFolder, "write", write)
        with pytest.raises(KeyboardInterrupt):
            evaluate(models, {"a": data, "b": data}, out=out, batch_size=3)
        monkeypatch.setattr(ResultsFolder, "write", plain)
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
    with pytest.raises(UserError, match=rf"(?s){part}.*Give a new folder"):
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
    with pytest.raises(UserError, match="holds other files"):
        evaluate((Grey(), VIEW), {"mine": data}, out=tmp_path / "out")
    with pytest.raises(UserError, match=r"mine\.txt is a file"):
        evaluate((Grey(), VIEW), {"mine": data}, out=tmp_path / "out" / "mine.txt")
    for content, part in (("{}", "not written by evaluate"), ("{", "cannot be read")):
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
            assert len(read_part(path)) == 5
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
    import relevit.evaluation.engine as engine

    monkeypatch.setattr(engine, "STREAM", 5)
    stream = StreamSet(
        "wds/x", lambda: [(Image.new("RGB", (9, 9), (10 * (i % 7),) * 3), i % 7) for i in range(23)], None
    )
    plain, left = ResultsFolder.write, [2]

    def write(self: ResultsFolder, *arguments: object) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        plain(self, *arguments)

    monkeypatch.setattr(ResultsFolder, "write", write)
    with pytest.raises(KeyboardInterrupt):
        evaluate({"one": (Grey(), VIEW)}, {"s": stream}, out=tmp_path / "out")
    monkeypatch.setattr(ResultsFolder, "write", plain)
    first, second = Grey(), Grey(0.3)
    evaluate({"one": (first, VIEW)}, {"s": stream}, out=tmp_path / "out")
    assert first.seen == 13
    names = [path.name for path in sorted((tmp_path / "out" / "predictions" / "s" / "one").iterdir())]
    assert names == [part_name(i, 5, "parquet") for i in range(5)]
    report = evaluate({"one": (first, VIEW), "two": (second, VIEW)}, {"s": stream}, out=tmp_path / "out")
    assert first.seen == 13 and second.seen == 23 and report.accuracies["s"]["two"].r1 == 100
    assert report.predictions["s"]["one"].keys == [f"{i:09d}" for i in range(23)]


PROGRAM = """
import os, sys, time
sys.path.insert(0, {tests!r})
import leaving
import torch
from relevit.evaluation import evaluate, shards
from test_evaluate_folder import Grey, VIEW
shards.LEAST = shards.MOST = 5

class Slow(Grey):
    def forward(self, images):
        time.sleep({pause})
        return super().forward(images)

torch.set_num_threads(1)
report = evaluate({{"one": (Slow(), VIEW), "two": (Slow(0.3), VIEW)}}, {{"mine": {data!r}}}, out={out!r}, batch_size=3, device="cpu")
sys.stdout.write(f"finished {{len(report.predictions['mine']['two'])}} of {{os.environ.get('WORLD_SIZE')}}\\n")
"""


def program(tmp_path: Path, data: Path, out: Path | None, pause: float = 0.0) -> Path:
    path = tmp_path / "program.py"
    path.write_text(
        PROGRAM.format(
            tests=str(Path(__file__).parent), data=str(data), out=None if out is None else str(out), pause=pause
        )
    )
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def launch(script: Path) -> subprocess.CompletedProcess[str]:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}", str(script)]
    return subprocess.run(call, env=environment(), capture_output=True, text=True, timeout=600)


@pytest.fixture
def expected(data: Path, tmp_path: Path) -> dict[str, bytes]:
    models = {"one": (Grey(), VIEW), "two": (Grey(0.3), VIEW)}
    evaluate(models, {"mine": data}, out=tmp_path / "whole", batch_size=3)
    return files(tmp_path / "whole" / "predictions")


@pytest.mark.slow
def test_two_processes_write_what_one_writes(data: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    for _ in range(2):  # the second time nothing is left to do
        done = launch(program(tmp_path, data, tmp_path / "out"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("finished 37 of 2") == done.stdout.count("left") == 2
        assert files(tmp_path / "out" / "predictions") == expected
    done = launch(program(tmp_path, data, None))  # without a folder the rows are gathered in memory
    assert done.returncode == 0 and done.stdout.count("finished 37 of 2") == 2, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 7, 12])
def test_a_process_killed_at_any_moment_goes_on(
    data: Path, tmp_path: Path, expected: dict[str, bytes], parts: int
) -> None:
    out = tmp_path / "out"
    script = program(tmp_path, data, out, pause=0.3)
    running = subprocess.Popen([sys.executable, str(script)], env=environment(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(out.rglob("part-*"))) < parts and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    running.kill()
    running.communicate()
    assert running.returncode == -9 and parts <= len(list(out.rglob("part-*"))) < 16
    again = subprocess.run(
        [sys.executable, str(script)], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr
    assert files(out / "predictions") == expected


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
