"""The demo from end to end on a few pictures, and what its report says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from relevit.data.builtin import digits as bench
from relevit.data.builtin.sets import of_pictures
from relevit.demonstration import run as quick
from relevit.demonstration.demo import demo
from relevit.demonstration.pages import CASES_EACH, cases_of
from relevit.demonstration.text import LEAD, verdict
from relevit.errors import UserError
from relevit.evaluation import evaluate
from relevit.experiments.experiment import RATES
from relevit.experiments.sources import builtin_work
from relevit.folders import OwnedFolder
from relevit.models.loading import load
from relevit.report.results import Results
from relevit.statistics.estimate import Estimate
from small_builtin import make_small


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


@pytest.mark.slow
def test_demo_writes_figures_and_a_report_once(small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs" / "demo"
    report = demo(out)
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["models"]) == ["original", *quick.METHODS]
    for row in metrics["models"].values():
        assert list(row) == list(bench.TEST_SETS)
        assert all(0 <= figure <= 100 for figure in row.values())
    page = report.read_text()
    assert f"{metrics['models']['original']['location']:.1f}" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    capsys.readouterr()

    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".relevit"}
    (out / ".relevit" / "lock").touch()  # of a demo that was killed when all was done
    assert demo(out) == report
    said = capsys.readouterr().out.replace("\n", "")
    assert "report.html" in said and "--out" in said
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".relevit"} == before


def test_demo_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not empty and was not begun by relevit demo"):
        demo(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_demo_refuses_to_go_on_with_another_seed(tmp_path: Path) -> None:
    with OwnedFolder(tmp_path, "relevit demo", {"full": False, "seed": 1}):
        pass
    with pytest.raises(UserError, match="seed: 1 in the folder, 2 now"):
        demo(tmp_path, seed=2)


def test_the_rates_are_there_for_every_method() -> None:
    rates = quick.read_rates()
    assert set(rates) == {f"{m}-{quick.PER_CLASS}" for m in quick.METHODS}
    assert set(rates.values()) <= set(RATES[1:])
    assert f"{LEAD}-{quick.PER_CLASS}" in rates


def test_cases_are_what_their_names_say() -> None:
    original = load("builtin")[0]
    other = load("builtin")[0]
    other.head.weight.data = other.head.weight.data.roll(1, 0)  # says the next class where the original says one
    other.head.bias.data = other.head.bias.data.roll(1, 0)
    pictures = bench.test_set("background_shuffled", "test", 1).subset(np.arange(0, 800, 7))
    view, shown = load("builtin")[1], of_pictures(pictures)
    models = {"original": (original, view), "other": (other, view)}
    rows = evaluate(models, {"shown": shown}).predictions["shown"]
    cases = cases_of(original, other, list(rows.values()), shown)
    assert len(cases["ruined"]) > 0
    expected = {"corrected": (False, True), "ruined": (True, False)}
    for kind, panels in cases.items():
        for panel in panels:
            before, after = panel.answers
            assert [name for name, _ in panel.tiles] == ["image", "mask", "map, before", "map, after"]
            assert (before.right, after.right) == (before.prediction == panel.label, after.prediction == panel.label)
            same = before.prediction == after.prediction
            assert same if kind == "unchanged" else (before.right, after.right) == expected[kind]
    labels = [panel.label for panel in cases["ruined"]]
    assert len(labels) == len(set(labels)) <= CASES_EACH


def test_the_verdict_names_the_figures() -> None:
    def alone(mean: float) -> Estimate:
        return Estimate(mean, mean, mean, 1, "seeds")

    models = ["original", *quick.METHODS]
    values = {m: {s: alone(10.0 * i + j) for j, s in enumerate(bench.TEST_SETS)} for i, m in enumerate(models)}
    share = {m: alone(31.0 + i) for i, m in enumerate(models)}
    text = " ".join(verdict(Results(models, list(bench.TEST_SETS), values, "original", {}, share)))
    lead = values[LEAD]["background_shuffled"].value
    assert f"{lead:.1f}%" in text
    assert f"+{lead - values['original']['background_shuffled'].value:.1f}" in text
    assert "31% before" in text and "32% after relevance alone" in text


def test_the_shipped_model_is_what_the_benchmark_says() -> None:
    """Right on most of the usual pictures, clearly worse before another class's background (a few hundred pictures)."""
    model, _ = load("builtin")
    usual, shuffled = (
        builtin_work.hits_of(model, bench.test_set(name, "test", 1).subset(np.arange(0, 800, 2))).mean()
        for name in ("in_distribution", "background_shuffled")
    )
    assert usual > 0.88
    assert usual - shuffled > 0.12
