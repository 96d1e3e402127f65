import json

import pytest
import torch

from relevit.data.manifest import Row
from relevit.errors import UserError
from relevit.models.fingerprints import of_weights as fingerprint
from relevit.training.logs import CsvLog
from relevit.training.run_folder import RunFolder

CONFIG = {"lr": 0.1, "epochs": 3, "about": {"torch": "1"}}


def test_create_resume_finish(tmp_path):
    folder = RunFolder(tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists() and folder.read_state() is None  # opening writes nothing
    with folder:
        folder.write_split([Row("a", "dog", 1, "training")])
    assert (tmp_path / "run" / "split.csv").read_text() == "name,class,label,split\na,dog,1,training\n"
    folder.write_state({"model": {"w": torch.arange(3)}, "position": {"step": 4, "sums": {"loss": 0.1}}})
    again = RunFolder(tmp_path / "run", {**CONFIG, "about": {"torch": "2"}})
    state = again.read_state()
    assert state["position"] == {"step": 4, "sums": {"loss": 0.1}} and torch.equal(state["model"]["w"], torch.arange(3))
    assert again.result is None
    again.finish({"after": {"loss": 1.5}})
    assert RunFolder(tmp_path / "run", CONFIG).result == {"after": {"loss": 1.5}}
    assert not (tmp_path / "run" / "state").exists()


def test_another_configuration_is_refused_with_the_differences(tmp_path):
    with RunFolder(tmp_path / "run", CONFIG):
        pass
    with pytest.raises(UserError) as error:
        RunFolder(tmp_path / "run", {**CONFIG, "lr": 0.2, "seed": 1})
    assert "lr: 0.1 in the folder, 0.2 now; seed: None in the folder, 1 now" in str(error.value)
    assert "epochs" not in str(error.value)


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="nothing is overwritten"):
        RunFolder(tmp_path, CONFIG)
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "notes.txt", CONFIG)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        RunFolder(tmp_path / "broken", CONFIG)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["notes.txt"]


def test_an_empty_folder_and_a_killed_runs_start_may_be_used(tmp_path):
    (tmp_path / ".config.json.tmp-abc").write_text("{")
    (tmp_path / "trials").mkdir()
    (tmp_path / ".relevit").mkdir()
    (tmp_path / ".relevit" / "lock").write_text("")
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.write_split([])
    assert json.loads((tmp_path / "config.json").read_text()) == {"written_by": "relevit finetune", **CONFIG}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "split.csv", "trials"]


def test_of_two_calls_at_once_the_second_is_refused(tmp_path):
    with RunFolder(tmp_path / "run", CONFIG), pytest.raises(UserError, match="in use by another relevit command"):
        RunFolder(tmp_path / "run", CONFIG).__enter__()


def test_log_is_cut_off_behind_the_state(tmp_path):
    file = tmp_path / "steps.csv"
    log = CsvLog(file, "step", 0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": step / 3})
    log.close()
    with open(file, "a") as opened:
        opened.write("4,0.1")  # a row that was cut short
    log = CsvLog(file, "step", 2)
    log.write({"step": 3, "loss": 9.0, "unknown": 1})
    log.write({"step": 4})
    log.close()
    assert file.read_text() == "step,loss\n1,0.333333\n2,0.666667\n3,9\n4,\n"
    CsvLog(file, "step", 0)
    assert not file.exists()


def test_states_come_less_often_where_writing_takes_long(tmp_path, monkeypatch):
    from relevit.training import run_folder as runfolder

    now = [100.0]
    monkeypatch.setattr(runfolder.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(runfolder, "atomic_write", lambda *_: now.__setitem__(0, now[0] + 6.0))
    folder = RunFolder(tmp_path / "run", CONFIG)
    folder.write_state({}, every=30.0)  # 6 seconds of writing: the next after 120
    now[0] += 119
    assert not folder.state_is_due
    now[0] += 2
    assert folder.state_is_due


def test_fingerprint():
    weights = {"a": torch.arange(6.0), "b": torch.zeros(2, dtype=torch.bfloat16), "c": torch.tensor(1)}
    assert fingerprint(weights) == fingerprint(dict(reversed(weights.items())))
    for name, other in [("a", torch.arange(6.0).view(2, 3)), ("a", torch.arange(6)), ("c", torch.tensor(2))]:
        assert fingerprint({**weights, name: other}) != fingerprint(weights)
