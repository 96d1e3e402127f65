"""The tables of the built-in benchmark's experiments are those of the committed rows."""

import importlib.util
import math
import re
import statistics
import sys
from pathlib import Path

import pytest

from relevit.experiments.experiment import Arm, Data, Design
from relevit.experiments.results import Cell, cells_of, point, with_changes
from relevit.experiments.table import plan_for
from relevit.experiments.tables import RUN_COLUMNS, _cell, markdown, read_runs, table, values_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FOLDER = BENCHMARKS / "builtin"
T_4 = 2.7764451051977987  # the 97.5 % quantile of Student's t with 4 degrees of freedom


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("builtin_tables", BENCHMARKS / "builtin_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_tables_are_made_of_the_committed_rows():
    rows = read_runs(FOLDER / "results.csv")
    assert (FOLDER / "TABLES.md").read_text() == markdown(values_of(rows))


def test_a_claim_is_a_paired_difference_over_seeds():
    """Against sums by hand."""
    rows = read_runs(FOLDER / "results.csv")

    def shifted(row):
        return {
            int(each["seed"]): float(each["value"])
            for each in rows
            if (each["experiment"], each["row"], each["set"], each["figure"]) == ("table1", row, "shifted", "r1")
        }

    ours, theirs = shifted("relevance"), shifted("gradmask")
    differences = [ours[seed] - theirs[seed] for seed in range(5)]
    half = T_4 * statistics.stdev(differences) / math.sqrt(5)
    found = plan_for("table1", Data("builtin")).of_values(values_of(rows)["table1"]).findings[1]
    assert found.says == "ours does better than GradMask" and found.count == 5
    wanted = [statistics.fmean(differences) + sign * half for sign in (0, -1, 1)]
    assert [found.difference.value, *found.difference.ends] == pytest.approx(wanted, rel=1e-9)
    assert found.verdict == ("holds" if wanted[1] > 0 else "not settled")


def small(tables, tmp_path, value="61.5"):
    row = {
        "experiment": "table2", "row": "relevance", "rate": "3e-05", "set": "location", "group": "all",
        "figure": "r1", "pictures_per_object": "3", "command": "relevit reproduce table2 --data builtin --out DIR",
    }  # fmt: skip
    rows = [{**row, "row": "original", "seed": "", "rate": "", "value": "60"}]
    rows += [{**row, "seed": str(seed), "value": value if seed else "63.25"} for seed in range(2)]
    path = tmp_path / "runs.csv"
    path.write_text(table(rows, RUN_COLUMNS))
    return path


def run(tables, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["builtin_tables.py", *map(str, arguments)])
    tables.main()


def test_rows_of_another_run_replace_their_like(tables, tmp_path, monkeypatch, capsys):
    runs = small(tables, tmp_path)
    run(tables, monkeypatch, "--folder", tmp_path, "--runs", runs)
    assert "3 rows, 3 new; 0 were there, 0 of them" in capsys.readouterr().out
    assert (tmp_path / "results.csv").read_text() == runs.read_text()
    text = (tmp_path / "TABLES.md").read_text()
    assert re.search(r"^\| original \| 60\.0 \| not run \| not run \|  \|$", text, re.M)
    assert re.search(r"^\| relevance \| 62\.4 \+2\.4 \| not run \| not run \| 2 \|$", text, re.M)

    run(tables, monkeypatch, "--folder", tmp_path, "--runs", small(tables, tmp_path, "59"))
    said = capsys.readouterr().out
    assert "3 rows, 0 new; 3 were there, 1 of them" in said and "61.5, now 59" in said
    assert "| relevance | 61.1 +1.1 |" in (tmp_path / "TABLES.md").read_text()
    with pytest.raises(SystemExit, match="has the columns"):
        run(tables, monkeypatch, "--folder", tmp_path, "--runs", FOLDER / "TABLES.md")


def test_changes_are_bold_where_their_interval_excludes_zero():
    design = Design((Arm("a"),), ("s",), seeds=3)

    def cell(own, start):
        values = [Cell("a", "s", seed=seed, ours=point(value)) for seed, value in enumerate(own)]
        values += [] if start is None else [Cell("original", "s", ours=point(start))]
        (found,) = (found for found in cells_of(design, with_changes(values)) if found.row == "a")
        return _cell(found)

    assert cell([61.0, 62.0, 63.0], 59.0) == "**62.0 +3.0**"  # 62 -+ 2.48
    assert cell([61.0, 62.0, 63.0], 60.0) == "62.0 +2.0"
    assert cell([62.0], 50.0) == "62.0 +12.0"  # a single seed has no interval
    assert cell([62.0], None) == "62.0"
