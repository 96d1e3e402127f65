"""Trackers of accelerate: which there are, and that a run which was killed and goes on gives none a row twice."""

import json
import struct
from pathlib import Path

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relevit.errors import UserError
from relevit.training.loop import finetune
from relevit.training.step import Step
from relevit.training.trackers import trackers_of
from tiny_run import TinySamples, arguments, rows_of, tiny_model

STEPS, ENDS = list(range(1, 13)), [4, 8, 12]  # of a run of `arguments()`, and where its epochs end


class Kept(GeneralTracker):
    """A tracker that keeps what it is given."""

    name, requires_logging_directory, main_process_only = "kept", False, True

    def __init__(self, project, **options):
        super().__init__()
        self.calls.append(("start", project, options))

    def __init_subclass__(cls):
        cls.calls = []

    @property
    def tracker(self):
        return self.calls

    def store_init_configuration(self, values):
        self.calls.append(("about", values, None))

    def log(self, values, step=None, **_):
        self.calls.append(("log", values, step))

    def finish(self):
        self.calls.append(("finish", None, None))


def killed_and_resumed(out: Path, monkeypatch, **changed: object) -> None:
    """A run that ends by an error in its seventh step, of which the state does not know the sixth, and the same call again."""
    options = arguments(checkpoint_seconds=1e6, previews=0, **changed)
    learn, left = Step.learn, 6

    def failing(*given):
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("planted")
        return learn(*given)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="planted"):
        patched.setattr(Step, "learn", failing)
        finetune(tiny_model(), TinySamples(14), out, **options)
    assert [int(row["step"]) for row in rows_of(out / "steps.csv")] == STEPS[:6]
    finetune(tiny_model(), TinySamples(14), out, **options)
    assert [int(row["step"]) for row in rows_of(out / "steps.csv")] == STEPS


def test_names(monkeypatch):
    assert trackers_of("none") == trackers_of(None) == trackers_of([]) == []
    assert trackers_of(["tensorboard,tensorboard", "none"]) == trackers_of("tensorboard") == ["tensorboard"]
    with pytest.raises(UserError, match=r"no tracker 'tensorbord': choose of aim, .*wandb, or none"):
        trackers_of("tensorboard, tensorbord")
    monkeypatch.setattr("relevit.training.trackers.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(UserError, match="comet_ml is not installed: pip install comet-ml"):
        finetune(tiny_model(), TinySamples(4), None, **arguments(track="comet_ml"))


def test_a_resumed_run_gives_no_row_twice(tmp_path, monkeypatch):
    class OfThisTest(Kept):
        pass

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "kept", OfThisTest)
    out = tmp_path / "run"
    killed_and_resumed(out, monkeypatch, track=["kept", "tensorboard"])
    logged = [(values, step) for what, values, step in OfThisTest.calls if what == "log"]
    assert [step for values, step in logged if "train/loss" in values] == STEPS
    assert [step for values, step in logged if "validation/loss" in values] == ENDS
    assert [what for what, *_ in OfThisTest.calls if what != "log"] == ["start", "about", "finish", "start", "finish"]
    about = next(values for what, values, _ in OfThisTest.calls if what == "about")
    assert about["method"] == "relevance" and about["lambda_bg"] == 2.0

    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    for row, event in zip(rows_of(out / "steps.csv"), board.Scalars("train/loss"), strict=True):
        assert event.step == int(row["step"]) and event.value == pytest.approx(float(row["loss"]), rel=1e-5)
    assert [event.step for event in board.Scalars("validation/accuracy")] == ENDS


def wandb_records(file: Path) -> list:
    """The records of an offline run of wandb: blocks of 32 KiB with a checksum, a length and a kind before each part."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, records, part, place = file.read_bytes(), [], b"", 7
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            records.append(Record.FromString(part))
            part = b""
    return records


@pytest.mark.slow
def test_wandb_without_a_server(tmp_path, monkeypatch):
    """Two parts of one run, of which `wandb sync` makes one."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    killed_and_resumed(tmp_path / "run", monkeypatch, track="wandb")
    identity = json.loads((tmp_path / "run" / "tracked.json").read_text())["id"]
    files = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*/run-{identity}.wandb"))
    assert len(files) == 2
    steps: dict[str, list[int]] = {"train/loss": [], "validation/loss": []}
    for record in (record for file in files for record in wandb_records(file)):
        names = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        for name in steps.keys() & names.keys():
            steps[name].append(int(names["_step"]))
    assert steps == {"train/loss": STEPS, "validation/loss": ENDS}
