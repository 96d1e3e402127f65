"""Jobs: done once, whatever happens on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import job_functions
from relevit.errors import UserError
from relevit.experiments.engines import make_engine
from relevit.experiments.jobs import Job, Lack, ends, in_order, lacks, own_folder, run_jobs
from relevit.experiments.records import read_record

HERE = "job_functions"


def quiet(_: str) -> None:
    pass


def run(jobs: list[Job], out: Path, **options: Any) -> dict[str, Any]:
    return run_jobs(jobs, out, **{"workers": 2, "say": quiet, **options})


def test_results_are_kept_with_what_they_were_made_of(tmp_path: Path) -> None:
    jobs = [
        Job("sum", f"{HERE}:collect", {"scale": 3}, after=("b", "a")),  # declared before those that it wants
        Job("a", f"{HERE}:add", {"a": 2, "b": 5}),
        Job("b", f"{HERE}:add", {"a": 0.5, "b": 11}),
    ]
    found = run(jobs, tmp_path)
    assert list(found) == ["sum", "a", "b"]
    assert found["sum"].result == {"b": 34.5, "a": 21}
    record = json.loads((tmp_path / "jobs" / "sum.json").read_text())
    assert record["state"] == "done" and record["arguments"] == {"scale": 3} and set(record["after"]) == {"a", "b"}
    assert record["versions"]["torch"] and "cores" in record["hardware"] and record["seconds"] >= 0


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    jobs = [Job(name, f"{HERE}:note", {"name": name}) for name in ("x", "y")]
    run(jobs, tmp_path)
    said: list[str] = []
    again = run([*jobs, Job("z", f"{HERE}:note", {"name": "z"})], tmp_path, say=said.append)
    assert {key: outcome.result for key, outcome in again.items()} == {"x": "x", "y": "y", "z": "z"}
    assert sorted(path.name[0] for path in (tmp_path / "notes").iterdir()) == ["x", "y", "z"]
    assert len(said) == 1 and said[0].startswith("[1/1] z: ")


def test_a_failure_stops_no_other_and_is_tried_again(tmp_path: Path) -> None:
    jobs = [
        Job("bad", f"{HERE}:refuse"),
        Job("needs-bad", f"{HERE}:collect", after=("bad",)),
        Job("further", f"{HERE}:collect", after=("needs-bad",)),
        Job("good", f"{HERE}:add", {"a": 1, "b": 2}),
    ]
    found = run(jobs, tmp_path)
    assert {key: outcome.state for key, outcome in found.items()} == {
        "bad": "failed",
        "needs-bad": "skipped",
        "further": "skipped",
        "good": "done",
    }
    assert found["bad"].reason.endswith("ValueError: this will not do")
    assert "bad failed" in found["needs-bad"].reason and "this will not do" in found["further"].reason
    record = read_record(tmp_path, "bad")
    assert record is not None and record.state == "failed" and "job_functions.py" in record.error
    assert read_record(tmp_path, "needs-bad") is None
    (tmp_path / "mended").touch()
    found = run(jobs, tmp_path)
    assert found["further"].state == "done" and found["needs-bad"].result == {"bad": 7}


def test_a_killed_worker_is_a_failed_job_and_no_more(tmp_path: Path) -> None:
    jobs = [Job("dead", f"{HERE}:die"), *(Job(f"n{i}", f"{HERE}:add", {"a": i, "b": 1}) for i in range(5))]
    found = run(jobs, tmp_path)
    assert found["dead"].state == "failed" and "SIGKILL" in found["dead"].reason
    assert [found[f"n{i}"].result for i in range(5)] == [1, 2, 3, 4, 5]


def test_other_arguments_are_refused_with_the_differences(tmp_path: Path) -> None:
    run([Job("a", f"{HERE}:add", {"a": 2, "b": 5}), Job("b", f"{HERE}:threads")], tmp_path)
    before = (tmp_path / "jobs" / "a.json").read_bytes()
    other = [Job("a", f"{HERE}:add", {"a": 3, "b": 5}), Job("b", f"{HERE}:note", {"name": "b"})]
    with pytest.raises(UserError, match=r"a: a was 2, now 3; b: function was 'job_functions:threads'"):
        run(other, tmp_path)
    assert (tmp_path / "jobs" / "a.json").read_bytes() == before and not (tmp_path / "notes").exists()


def test_a_job_of_other_results_is_not_taken_for_done(tmp_path: Path) -> None:
    jobs = [Job("a", f"{HERE}:add", {"a": 2, "b": 5}), Job("c", f"{HERE}:collect", after=("a",))]
    run(jobs, tmp_path)
    (tmp_path / "jobs" / "a.json").unlink()
    assert run(jobs, tmp_path)["c"].result == {"a": 7}  # made again, the same
    (tmp_path / "jobs" / "a.json").unlink()
    found = run([Job("a", f"{HERE}:add", {"a": 4, "b": 5}), jobs[1]], tmp_path)
    assert found["c"].state == "failed" and "other results of a: remove" in found["c"].reason


def test_two_programs_do_not_share_a_folder(tmp_path: Path) -> None:
    with own_folder(tmp_path), pytest.raises(UserError, match="is in use by another relevit command"):
        run([Job("a", f"{HERE}:note", {"name": "a"})], tmp_path)
    assert not (tmp_path / "notes").exists()
    assert run([Job("a", f"{HERE}:note", {"name": "a"})], tmp_path)["a"].state == "done"


def test_jobs_without_data_are_skipped_and_say_so(tmp_path: Path) -> None:
    jobs = [
        Job("a", f"{HERE}:note", {"name": "a"}, needs=("imagenet", "imagenet-a")),
        Job("b", f"{HERE}:add", {"a": 1, "b": 1}, needs=("imagenet",)),
        Job("c", f"{HERE}:collect", after=("a",)),
    ]
    found = run(jobs, tmp_path, missing={"imagenet-a": "no such folder"})
    assert found["a"].state == "skipped" and found["a"].reason == "no data: imagenet-a (no such folder)"
    assert found["b"].state == "done" and "no data: imagenet-a" in found["c"].reason
    assert not (tmp_path / "notes").exists()


def chain() -> list[Job]:
    """Two measurements of a tuned model and one of the original, and a picture of what changed on the first set."""
    return [
        Job("masks", f"{HERE}:note", {"name": "masks"}),
        Job("tuned", f"{HERE}:note", {"name": "tuned"}, after=("masks",)),
        Job("original-a", f"{HERE}:note", {"name": "original-a"}, needs=("a",)),
        Job("tuned-a", f"{HERE}:note", {"name": "tuned-a"}, needs=("a",), after=("tuned",)),
        Job("tuned-b", f"{HERE}:note", {"name": "tuned-b"}, needs=("b",), after=("tuned",)),
        Job("changed-a", f"{HERE}:note", {"name": "changed-a"}, after=("original-a", "tuned-a")),
    ]


def test_what_only_jobs_without_data_read_is_not_needed() -> None:
    jobs = chain()
    assert ends(jobs) == {"tuned-b", "changed-a"}
    assert lacks(jobs, {}, {}) == {}
    assert lacks(jobs, {}, {"a": "no"}) == {key: Lack(("a",)) for key in ("original-a", "tuned-a", "changed-a")}
    both = lacks(jobs, {}, {"b": "no", "a": "no"})
    assert both["masks"] == both["tuned"] == Lack(("a", "b"), not_needed=True) and both["tuned-b"] == Lack(("b",))
    # The tuned model lacks its own: the original on "a" is of use to the picture alone, unless it is wanted for itself.
    jobs[1] = Job("tuned", f"{HERE}:note", {"name": "tuned"}, ("weights",), ("masks",))
    without = lacks(jobs, {}, {"weights": "no"})
    assert {key for key, lack in without.items() if lack.not_needed} == {"masks", "original-a"}
    assert without["tuned-b"] == without["changed-a"] == Lack(("weights",))
    assert "original-a" not in lacks(jobs, {}, {"weights": "no"}, {*ends(jobs), "original-a"})


def test_jobs_not_needed_are_skipped_and_what_is_done_stays(tmp_path: Path) -> None:
    jobs, both = chain(), {"a": "no folder a", "b": "no folder b"}
    found = run(jobs, tmp_path, missing=both)
    assert all(outcome.state == "skipped" for outcome in found.values()) and not (tmp_path / "notes").exists()
    why = "no data: a (no folder a)"
    assert found["tuned-a"].reason == found["changed-a"].reason == why
    assert found["masks"].reason == f"not needed, nothing that reads it has its data: {why}; no data: b (no folder b)"
    wanted = run(jobs, tmp_path, missing=both, wanted={"masks"})
    assert wanted["masks"].state == "done" and wanted["tuned"].state == "skipped"
    assert run(jobs, tmp_path, missing=both)["masks"].state == "done"
    half = run(jobs, tmp_path, missing={"a": "no folder a"})
    assert {key for key, outcome in half.items() if outcome.state == "done"} == {"masks", "tuned", "tuned-b"}
    again = run(jobs, tmp_path, missing=both)
    assert {key: outcome.state for key, outcome in again.items()} == {
        key: outcome.state for key, outcome in half.items()
    }
    assert len(list((tmp_path / "notes").iterdir())) == 3


def test_results_must_be_json_and_workers_have_one_thread(tmp_path: Path) -> None:
    jobs = [
        Job("nan", f"{HERE}:not_a_number"),
        Job("one", f"{HERE}:threads"),
        Job("no", f"{HERE}:nothing_of_this_name"),
    ]
    found = run(jobs, tmp_path)
    assert found["nan"].state == "failed" and "not JSON compliant" in found["nan"].reason
    assert found["one"].result == "1"
    assert found["no"].state == "failed" and "nothing_of_this_name" in found["no"].reason


@pytest.mark.parametrize(
    ("jobs", "fault"),
    [
        ([Job("../a", "m:f")], "no key"),
        ([Job("", "m:f")], "no key"),
        ([Job("a", "m:f"), Job("a", "m:g")], "two different jobs"),
        ([Job("a", "m:f", after=("b",))], "not among the jobs"),
        ([Job("a", "m:f", after=("b",)), Job("b", "m:f", after=("a",))], "wait for each other"),
    ],
)
def test_faulty_declarations(jobs: list[Job], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=fault):
        run(jobs, tmp_path)
    assert not list(tmp_path.iterdir())


def test_order_is_kept_but_for_what_comes_before() -> None:
    jobs = [Job("c", "m:f", after=("b", "a")), Job("a", "m:f"), Job("b", "m:f", after=("d",)), Job("d", "m:f")]
    assert [job.key for job in in_order([*jobs, jobs[1]])] == ["d", "b", "a", "c"]


def test_engines_and_numbers_of_workers_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown engine 'abacus': choose one of local, ray, slurm"):
        run([Job("a", "m:f")], tmp_path, engine="abacus")
    with pytest.raises(UserError, match="at least 1"):
        run([Job("a", "m:f")], tmp_path, workers=0)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file: choose a folder"):
        run([Job("a", "m:f")], tmp_path / "file")


def test_a_record_that_is_none_is_named(tmp_path: Path) -> None:
    with own_folder(tmp_path):
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "a.json").write_text("{}")
    with pytest.raises(UserError, match=r"a\.json is no record of a job"):
        run([Job("a", f"{HERE}:threads")], tmp_path)


def test_slurm_by_submitit_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    jobs = [Job("a", "operator_like:add"), Job("b", "json:dumps", {"obj": [1, 2]})]
    found = run(jobs, tmp_path, engine="slurm", options={"cluster": "local"})
    assert found["b"].result == "[1, 2]"
    assert found["a"].state == "failed" and "operator_like" in found["a"].reason


# Killed on the way.


def start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(job_functions.__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, job_functions.__file__, str(out), *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path})


def results(out: Path) -> dict[str, Any]:
    records = {job.key: read_record(out, job.key) for job in job_functions.grid()}
    return {key: (record.state, record.result) for key, record in records.items() if record is not None}


def children(pid: int) -> list[int]:
    """The workers of a program (Linux)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_text()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z" and "spawn_main" in command:
                found.append(int(entry.name))
    return found


def starts_after_their_record(out: Path) -> list[str]:
    """Starts of jobs whose result had been written before."""
    late = []
    for path in (out / "notes").iterdir():
        key, _, moment = path.name.rpartition("-")
        record = read_record(out, key)
        if record is not None and int(moment) > (out / "jobs" / f"{key}.json").stat().st_mtime_ns:
            late.append(path.name)
    return late


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("seed", [0, 1])
def test_a_grid_killed_again_and_again_ends_as_if_it_were_not(seed: int, tmp_path: Path) -> None:
    expected = start(tmp_path / "calm", "local")
    assert expected.wait(60) == 0
    draws, out = random.Random(seed), tmp_path / "wild"
    deadline, kills = time.monotonic() + 90, 0
    while time.monotonic() < deadline:
        program = start(out, "local")
        whole = draws.random() < 0.5 and kills < 8  # else one of its workers, once
        goal, moment = (
            len(results(out)) + draws.randrange(3),
            time.monotonic() + 20,
        )  # after so many more jobs, and a little
        while program.poll() is None and time.monotonic() < moment and len(results(out)) < goal:
            time.sleep(0.01)
        moment = time.monotonic() + draws.uniform(0.0, 0.5) * (kills < 8)
        while program.poll() is None and time.monotonic() < moment:
            time.sleep(0.01)
        workers = children(program.pid)
        if program.poll() is None and kills < 8:
            kills += 1
            if whole:
                os.kill(program.pid, signal.SIGKILL)
            elif workers:
                os.kill(draws.choice(workers), signal.SIGKILL)
        program.communicate(timeout=60)
        for _ in range(300):  # its workers end with it
            if not any((Path("/proc") / str(pid)).exists() for pid in workers):
                break
            time.sleep(0.01)
        else:
            pytest.fail("workers outlive their program")
        found = results(out)
        if len(found) == len(job_functions.grid()) and all(state == "done" for state, _ in found.values()):
            break
    assert kills >= 3
    assert results(out) == results(tmp_path / "calm")
    assert starts_after_their_record(out) == []
    assert len(list((tmp_path / "calm" / "notes").iterdir())) == len(job_functions.grid())


def test_each_worker_sees_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # of this process: its workers are told another
    devices = ["3", "MIG-7", "11"]
    assert make_engine("local", None, tmp_path, {"devices": devices}).size == 3  # type: ignore[attr-defined]
    with make_engine("local", None, tmp_path, {"devices": devices}) as pool:
        request = {"function": f"{HERE}:device", "arguments": {}, "after": {}, "folder": str(tmp_path)}
        seen: dict[str, Any] = {}
        for name in "abc":
            pool.submit(name, request)
        assert pool.free == 0
        while len(seen) < 3:
            seen.update(pool.wait())
        assert sorted(reply["result"] for reply in seen.values()) == sorted(devices)
    jobs = [Job("one", f"{HERE}:die"), Job("two", f"{HERE}:device", after=()), Job("three", f"{HERE}:device")]
    found = run_jobs(jobs, tmp_path / "out", workers=1, say=quiet, options={"devices": ["5"]})
    assert found["one"].state == "failed"  # the process that replaces it gets its device
    assert found["two"].result == found["three"].result == "5"


def test_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from relevit.experiments.engines.local import gpus

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpus() == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6, 4")
    assert gpus() == ["6", "4"]
