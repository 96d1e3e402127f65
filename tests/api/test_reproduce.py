"""`relevit reproduce`: what it lists, runs and writes."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from relevit import cli
from relevit.errors import UserError
from relevit.experiments.claims import Finding
from relevit.experiments.experiment import Data, Experiment
from relevit.experiments.jobs import Job, Outcome, own_folder
from relevit.experiments.plan import Plan
from relevit.experiments.reproduce import plan, reproduce
from relevit.experiments.results import Cell, Results
from relevit.experiments.sources.models import PAPER_MODELS, chosen_models
from relevit.experiments.table import EXPERIMENTS, chosen
from relevit.experiments.tables import command_for
from relevit.report.words import MINUS
from relevit.statistics.estimate import Estimate

BUILTIN = Data("builtin")


class Sums:
    """What makes a Plan of two sums and one that fails, or lacks its data."""

    def __init__(self, number: int, needs: tuple[str, ...] = ()) -> None:
        self.number, self.needs = number, needs

    def __call__(self, data: Data) -> Sums:
        self.data = data
        return self

    def jobs(self) -> list[Job]:
        n = self.number
        return [
            Job("shared", "job_functions:add", {"a": 1, "b": 1}, seconds=3),
            Job(f"sum-{n}", "job_functions:add", {"a": n, "b": 1.25}, seconds=7),
            Job(f"bad-{n}", "job_functions:refuse", needs=self.needs, after=("shared",)),
        ]

    def results(self, outcomes: Mapping[str, Outcome], out: Path) -> Results:
        n, cells = self.number, []
        for key in ("shared", f"sum-{n}", f"bad-{n}"):
            outcome = outcomes[key]
            if outcome.state == "done":
                value = float(outcome.result)
                ours = Estimate(value, value - 1, value + 1, 3, "seeds")
                cells.append(Cell(key, "column_a", ours=ours, published=40.5))
            else:
                cells.append(Cell(key, "column_a", published=41.5, reason=outcome.reason.splitlines()[-1]))
        found = Estimate(-1.26, -2.0, -0.5, 3, "seeds")
        finding = Finding(f"claim <{n}>", "a less b", found, 3, "does not hold", 0.02 * n, f"of {n}")
        values = [Cell("shared", "column_a", seed=0, ours=alone(2.0))]
        return Results(cells, [finding], ["a note & more"], "a protocol", values)


def alone(value: float) -> Estimate:
    return Estimate(value, value, value, 1, "seeds")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = {
        "two": Experiment("the second", "Table 9", Sums(2, ("imagenet-a",))),
        "one": Experiment("the first", "Table 8", Sums(1)),
        "none": Experiment("no plan", "nowhere"),
    }
    monkeypatch.setattr(EXPERIMENTS, "builtin", declared)


def set_real(name: str, own: Callable[[Data], Plan]) -> None:
    """An experiment is done by such a plan on real data."""
    EXPERIMENTS[name] = replace(EXPERIMENTS[name], real=own)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_names_are_checked(tiny: None) -> None:
    assert chosen(["all"], "builtin") == ["two", "one"]
    assert chosen(["one", "two", "one"], "builtin") == ["two", "one"]
    with pytest.raises(UserError, match="unknown experiment 'three'"):
        chosen(["three"], "builtin")
    with pytest.raises(UserError, match="none cannot be run on --data builtin"):
        chosen(["none"], "builtin")


def test_the_dry_run_lists_and_writes_nothing(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["reproduce", "all", "--out", str(tmp_path / "out"), "--dry-run", "--workers", "2"])
        raise SystemExit(0)
    assert not ended.value.code
    said = capsys.readouterr().out
    assert said.count("shared") == 1 and "sum-2" in said and "5 runs: 0 done, 5 to do" in said
    assert not (tmp_path / "out").exists()


def test_states_of_the_plan(tiny: None, tmp_path: Path) -> None:
    absent = Data("builtin", missing={"imagenet-a": "no such folder"})
    states = {entry.job.key: entry.state for entry in plan(["two"], absent, tmp_path)}
    idle = "not needed: nothing that reads it has its data (imagenet-a)"
    assert states == {"shared": idle, "sum-2": "to do", "bad-2": "no data: imagenet-a"}
    both = {entry.job.key: entry.state for entry in plan(["one", "two"], absent, tmp_path)}
    assert both["shared"] == "to do" and both["bad-2"] == "no data: imagenet-a"  # the other experiment needs it
    reproduce(["one"], BUILTIN, tmp_path, say=lambda _: None, workers=1)
    states = {entry.job.key: (entry.experiment, entry.state) for entry in plan(["one", "two"], absent, tmp_path)}
    assert states["shared"] == ("two", "done") and states["sum-1"] == ("one", "done")
    assert states["bad-1"] == ("one", "failed before")


class Chain(Sums):
    def jobs(self) -> list[Job]:
        return [
            Job("masks", "job_functions:add", {"a": 1, "b": 1}, needs=("imagenet-a",)),
            Job("samples", "job_functions:add", {"a": 1, "b": 2}, after=("masks",)),
            Job("tuned", "job_functions:add", {"a": 1, "b": 3}, needs=("imagenet-r", "imagenet-c"), after=("samples",)),
            Job("apart", "job_functions:add", {"a": 1, "b": 4}, needs=("imagenet-c",)),
        ]


def test_what_follows_a_run_without_data_lacks_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(EXPERIMENTS, "builtin", {"one": Experiment("the first", "Table 8", Chain(1))})
    absent = Data("builtin", missing={"imagenet-a": "no such folder", "imagenet-r": "none either"})
    assert [entry.state for entry in plan(["one"], absent, tmp_path)] == [
        "no data: imagenet-a",
        "no data: imagenet-a",
        "no data: imagenet-r, imagenet-a",
        "to do",
    ]


class Ends(Sums):
    """A Plan whose figure is that of a job which another's jobs come after."""

    def jobs(self) -> list[Job]:
        return super().jobs()[:1]


def test_what_is_shown_is_run_though_another_reader_lacks_data(tiny: None, tmp_path: Path) -> None:
    EXPERIMENTS["one"] = Experiment("the first", "Table 8", Ends(1))
    absent = Data("builtin", missing={"imagenet-a": "no such folder"})
    assert {entry.job.key: entry.state for entry in plan(["one", "two"], absent, tmp_path)}["shared"] == "to do"
    EXPERIMENTS["one"].builtin.results = lambda *_: Results([])  # type: ignore[union-attr, method-assign]
    reproduce(["two"], absent, tmp_path, say=lambda _: None, workers=1)
    assert not (tmp_path / "jobs" / "shared.json").exists()
    reproduce(["one", "two"], absent, tmp_path, say=lambda _: None, workers=1)
    assert json.loads((tmp_path / "jobs" / "shared.json").read_text())["state"] == "done"


def test_tables_say_what_was_measured_and_what_was_not(tiny: None, tmp_path: Path) -> None:
    absent = Data("builtin", missing={"imagenet-a": "no such folder"})
    reproduce(["one"], absent, tmp_path, say=lambda _: None, workers=1, command="relevit reproduce one")
    rows = {row["row"]: row for row in rows_of(tmp_path / "results.csv")}
    assert rows["sum-1"]["ours"] == "2.25" and rows["sum-1"]["published"] == "40.5"
    assert rows["sum-1"]["difference"] == "-38.25" and rows["sum-1"]["low"] == "1.25"
    assert (
        rows["bad-1"]["ours"] == ""
        and rows["bad-1"]["difference"] == ""
        and "this will not do" in rows["bad-1"]["state"]
    )
    page = (tmp_path / "report.html").read_text()
    assert "claim &lt;1&gt;" in page and "does not hold" in page and "a note &amp; more" in page
    assert "relevit reproduce one" in page and f"paper 40.5, {MINUS}38.2" in page and "this will not do" in page
    assert "torch" in page and "cores" in page and "http" not in page
    assert "Table 9" not in page

    # Another experiment in the same folder: the page shows both, what is done is not done again.
    said: list[str] = []
    reproduce(["two"], absent, tmp_path, say=said.append, workers=1)
    assert [line.split("] ")[1].split(":")[0] for line in said] == ["bad-2", "sum-2"] or len(said) == 2
    page = (tmp_path / "report.html").read_text()
    assert "Table 8" in page and "Table 9" in page and "no data: imagenet-a (no such folder)" in page
    content = json.loads((tmp_path / "results.json").read_text())
    assert list(content["experiments"]) == ["two", "one"]
    assert content["about"]["jobs"] == {"done": 3, "failed": 1, "skipped": 1}
    runs = rows_of(tmp_path / "runs.csv")
    assert [run["experiment"] for run in runs] == ["two", "one"] and runs[0]["value"] == "2"
    assert {row["protocol"] for row in rows_of(tmp_path / "results.csv")} == {"built-in"}
    jobs = rows_of(tmp_path / "jobs.csv")
    assert [job["state"] for job in jobs].count("done") == 3 and len(jobs) == 5
    for job in jobs:
        if job["state"] == "done":
            kept = json.loads((tmp_path / "jobs" / f"{job['job']}.json").read_text())
            assert float(job["seconds"]) == pytest.approx(kept["seconds"], rel=1e-4, abs=1e-6)
            assert job["hardware"] == kept["hardware"] and f"torch {kept['versions']['torch']}" in job["versions"]
            assert not job["reason"]
        else:
            assert not job["seconds"] and not job["versions"] and job["reason"]


def test_a_runs_command_names_all_that_its_figures_depend_on(tmp_path: Path) -> None:
    assert command_for("one", BUILTIN) == "relevit reproduce one --data builtin --out DIR"
    file = tmp_path / "a b.pth"
    file.touch()
    names = ["AR-S", f"mine=vit_tiny_patch16_224@{file}", "ViT-B=vit_tiny_patch16_224"]
    models = chosen_models(names)
    settings = {"epochs": 2, "classes": None, "mask_model": "m", "self_supervised": models[1]}
    words = shlex.split(command_for("one", Data("/da ta", protocol="standard", models=models, settings=settings)))
    assert words[3:7] == ["--data", "/da ta", "--out", "DIR"] and words[7:9] == ["--protocol", "standard"]
    assert words[9:13] == ["--models", *names] and chosen_models(words[10:13]) == models
    assert words[13:] == ["--epochs", "2", "--mask-model", "m", "--self-supervised", names[1]]
    whole = Data("/data", models=PAPER_MODELS)
    assert [name for name in shlex.split(command_for("one", whole)) if name.startswith("ViT")] == ["ViT-B", "ViT-L"]


def test_verdicts_are_corrected_over_all_claims_of_the_page(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of p 0.02 alone, and beside one of 0.04: then the first is 2 x 0.02, and the other no less."""

    def called(name: str) -> tuple[list[tuple[float, bool, str]], str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["reproduce", name, "--out", str(tmp_path / "out"), "--workers", "1"])
        assert ended.value.code == 1  # a run failed
        content = json.loads((tmp_path / "out" / "results.json").read_text())
        found = [
            (f["p_holm"], f["stays"], f["counted"]) for e in content["experiments"].values() for f in e["findings"]
        ]
        page = " ".join((tmp_path / "out" / "report.html").read_text().split())
        assert content["family"]["says"] in page.replace("&#39;", "'")
        return found, page, " ".join(capsys.readouterr().out.split())

    found, page, said = called("one")
    assert found == [(0.02, True, "one")] and ">also after Holm<" in page and ">not after Holm<" not in page
    assert "<td>0.020</td> <td>0.020</td>" in page and "but not after" not in said
    assert "Claims of the report: 1. 1 comparison was tested: 1 settled by the 95% interval alone" in said
    EXPERIMENTS["two"] = Experiment("the second", "Table 9", Sums(3))
    found, page, said = called("two")
    assert found == [(0.06, False, "two"), (0.04, True, "one")]
    assert page.count(">also after Holm<") == page.count(">not after Holm<") == 1 and "<td>0.060</td>" in page
    assert "claim <3>: does not hold -1.3 (-2.0 to -0.5), but not after Holm's correction" in said
    assert "2 settled by the 95% interval alone, 1 of these also after Holm's correction over all 2." in said
    EXPERIMENTS["two"] = Experiment("the second", "Table 9", Sums(1))  # the same claim again, first on the page
    found, page, _ = called("two")
    assert found == [(0.02, True, "two"), (0.02, True, "two")] and page.count("counted in Table 9") == 1


def test_folders_of_something_else_are_refused(tiny: None, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not empty and was not begun by relevit reproduce"):
        reproduce(["one"], BUILTIN, tmp_path, say=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_other_data_in_the_same_folder_are_refused(tiny: None, tmp_path: Path) -> None:
    reproduce(["one"], BUILTIN, tmp_path, say=lambda _: None, workers=1)
    set_real("one", Sums(1))
    with pytest.raises(UserError, match="data: 'builtin' in the folder"):
        reproduce(["one"], Data(str(tmp_path / "data")), tmp_path, say=lambda _: None)


class Protocols(Sums):
    """A Plan of one sum, whose arguments are the protocol's."""

    def jobs(self) -> list[Job]:
        value = {"paper": 1, "standard": 2}[self.data.protocol]
        return [Job(f"sum-{self.number}", "job_functions:add", {"a": value, "b": 1})]

    def results(self, outcomes: Mapping[str, Outcome], out: Path) -> Results:
        ours = alone(outcomes[f"sum-{self.number}"].result)
        return Results([Cell("sum", "column_a", ours=ours)])


def test_settings_other_than_the_folders_are_refused_at_first(tiny: None, tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        set_real(name, Protocols(number))
    root, out = str(tmp_path / "data"), tmp_path / "out"
    reproduce(["one"], Data(root, protocol="paper"), out, say=lambda _: None, workers=1)
    page = (out / "report.html").read_bytes()
    with pytest.raises(UserError, match="sum-0: a was 1, now 2"):
        reproduce(["two"], Data(root, protocol="standard"), out, say=lambda _: None, workers=1)
    assert not (out / "jobs" / "sum-1.json").exists() and (out / "report.html").read_bytes() == page


def test_a_program_that_is_at_work_keeps_its_places(tiny: None, tmp_path: Path) -> None:
    set_real("one", Protocols(1))
    first, second = (Data("/data", found={"imagenet-a": place}, protocol="paper") for place in ("/here", "/there"))
    reproduce(["one"], first, tmp_path, say=lambda _: None, workers=1)
    with own_folder(tmp_path, data="/data"), pytest.raises(UserError, match="in use by another"):
        reproduce(["one"], second, tmp_path, say=lambda _: None, workers=1)
    assert json.loads((tmp_path / "places.json").read_text())["data"] == {"imagenet-a": "/here"}


def test_options_are_checked(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--ray", "auto", "--slurm"], "exclude each other"),
        (["--workers", "0"], "at least 1"),
        (["--data", str(tmp_path / "nowhere")], "nowhere"),
        (["--mask-model", "vit_tiny_patch16_224"], "--mask-model is for a folder"),
        (["--self-supervised", "mine=vit_tiny_patch16_224"], "--self-supervised is for a folder"),
        (["--protocol", "paper"], "--protocol is for a folder"),
        (["--protocol", "standard"], "--protocol is for a folder"),
        (
            ["--data", str(tmp_path), "--self-supervised", "AR-S=vit_tiny_patch16_224"],
            "--self-supervised has the name of one of --models, AR-S",
        ),
        (["--slurm-options", "{timeout_min: 5}"], "--slurm-options are for --slurm"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["reproduce", "one", "--out", str(tmp_path / "out"), *options])
        assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_an_experiment_from_end_to_end_on_the_built_in_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figure 1 over one seed: trials of rates, the choice, the cell, its pictures on the page."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["reproduce", "figure1", "--out", str(tmp_path / "out"), "--seeds", "1"])
        raise SystemExit(0)
    assert not ended.value.code, capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    link = "effects/background_shuffled-relevance-3-seed-0/effects.html"
    assert f'href="{link}"' in page and "relevance, background shuffled" in page
    linked = (tmp_path / "out" / link).read_text()
    assert linked.count("data:image/") >= 1 and "unchanged" in linked.lower()
    assert (tmp_path / "out" / "models" / "relevance-3-seed-0" / "config.json").exists()
