"""An experiment's results as CSV, JSON and Markdown, and its single runs read back from CSV. All are made of the same values."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relevit.errors import UserError
from relevit.experiments.claims import Finding, corrected
from relevit.experiments.experiment import ACCURACY, EACH_CLASS, SHARE, Data, Design
from relevit.experiments.results import ORIGINAL, Cell, Results, point
from relevit.experiments.table import EXPERIMENTS, plan_of
from relevit.experiments.words import GROUPS, column, title
from relevit.report.words import MINUS, readable

RUN_COLUMNS = "experiment row seed rate set group figure value pictures_per_object command".split()


def command_for(name: str, data: Data) -> str:
    """The call that yields an experiment's figures on these data."""
    words = ["relevit", "reproduce", name, "--data", data.name, "--out", "DIR"]
    if data.name != "builtin":
        words += ["--protocol", data.protocol]
        words += ["--models", *(model.given for model in data.models)] if data.models else []
        given = {key: getattr(value, "given", value) for key, value in data.settings.items() if value is not None}
        words += [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    return shlex.join(words)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """CSV, with six digits at most."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [row.get(name) for name in columns]
        writer.writerow(["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return text.getvalue()


# Single runs.


def run_rows(name: str, results: Results, data: Data) -> list[dict[str, Any]]:
    """A row for each run and figure, with the command that yields it."""
    design, command = EXPERIMENTS[name].on(data.name), command_for(name, data)
    accuracy = isinstance(design, Design) and design.test == ACCURACY
    pictures = design.pictures_per_object if accuracy and data.name == "builtin" else None  # type: ignore[union-attr]
    return [
        {
            "experiment": name,
            "row": f"{value.model} {value.row}".strip(),
            "seed": value.seed,
            "rate": value.rate,
            "set": value.column,
            "group": value.group if accuracy else "",
            "figure": value.figure,
            "value": value.ours.value,
            "pictures_per_object": pictures,
            "command": command,
        }
        for value in results.values
        if value.ours is not None
    ]


def read_runs(path: Path) -> list[dict[str, str]]:
    """The rows of single runs. Raises UserError for a file of other columns."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != RUN_COLUMNS:
            raise UserError(
                f"{path} has the columns {reader.fieldnames}, not {RUN_COLUMNS}: give runs.csv of relevit reproduce"
            )
        return list(reader)


def values_of(rows: Iterable[Mapping[str, str]]) -> dict[str, list[Cell]]:
    """The values of rows on the built-in benchmark, by experiment."""
    found: dict[str, list[Cell]] = {}
    for row in rows:
        value = Cell(
            row["row"],
            row["set"],
            row["figure"],
            row["group"] or "all",
            point(float(row["value"])),
            seed=int(row["seed"]) if row["seed"] else None,
            rate=float(row["rate"]) if row["rate"] else None,
        )
        found.setdefault(row["experiment"], []).append(value)
    return found


# Tables.


@dataclass(frozen=True)
class Block:
    """A table of one figure and group of classes: names of its rows and columns, and its cells by both."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Mapping[tuple[str, str], Cell]


def blocks(cells: Sequence[Cell]) -> list[Block]:
    """A table for each figure and group of classes."""
    kinds: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        kinds.setdefault((cell.figure, cell.group), []).append(cell)
    found = []
    for (figure, group), own in kinds.items():
        heading = ", ".join(filter(None, (column(figure), GROUPS.get(group, group)))) if len(kinds) > 1 else ""
        rows, columns = dict.fromkeys(cell.row for cell in own), dict.fromkeys(cell.column for cell in own)
        found.append(Block(heading, list(rows), list(columns), {(cell.row, cell.column): cell for cell in own}))
    return found


def markdown(values: Mapping[str, Sequence[Cell]]) -> str:
    """Every experiment on the built-in benchmark with its claims and tables, of the values of single runs."""
    data = Data("builtin")
    designs = {name: design for name in values if isinstance(design := EXPERIMENTS[name].builtin, Design)}
    plans = {name: plan_of(design, data) for name, design in designs.items()}
    results = {name: plan.of_values(plan.in_order(values[name])) for name, plan in plans.items()}
    findings, family = corrected({name: own.findings for name, own in results.items()})
    lines = [
        "# The paper's experiments on the built-in benchmark: tables",
        "",
        "Made by `python benchmarks/builtin_tables.py` from [results.csv](results.csv), a row for each run and figure with the command",
        "that yields it. How it was run and what follows from it is in [RESULTS.md](../RESULTS.md).",
        "",
        "Percent; beside them changes from the original in points, **bold** where their 95 % interval over seeds (Student's t) excludes",
        'zero. "Shifted" is the mean of the six shifted sets. Claims are paired differences over the seeds that both sides have.',
        "",
        f"{family.stated} claims and questions. {family.says}",
    ]
    for name, design in designs.items():
        heading = f"## {title(name)}: {EXPERIMENTS[name].description}"
        lines += ["", heading, "", f"`relevit reproduce {name} --data builtin`"]
        if findings[name]:
            lines += ["", *_claims_table(findings[name])]
        if design.test == ACCURACY and EACH_CLASS not in design.groups:
            many = design.pictures_per_object
            pictures = "one picture" if many == 1 else f"{many} pictures"
            lines += ["", " ".join([f"Measured on {pictures} of each test object.", *design.notes])]
        for block in blocks(results[name].cells):
            lines += ["", f"{block.title}:"] if block.title else []
            lines += ["", *_figures_table(design, block)]
    return "\n".join(lines) + "\n"


def _claims_table(findings: Sequence[Finding]) -> list[str]:
    lines = ["| claim or question | compared | points | seeds | here it |", "| --- | --- | ---: | ---: | --- |"]
    for finding in findings:
        found = finding.difference
        points = "" if found is None else f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
        after = {True: ", after Holm too", False: ", not after Holm", None: ""}[finding.stays]
        words = readable(finding.compared)
        lines.append(f"| {finding.says} | {words} | {points} | {finding.count} | {finding.verdict}{after} |")
    return lines


def _figures_table(design: Design, block: Block) -> list[str]:
    """Changes in points, bold where their 95% interval over seeds excludes zero; of classes also the original's figure."""
    classes = EACH_CLASS in design.groups
    declared = design.sets if design.test == ACCURACY else design.figures
    columns = [name for name in declared if name in block.columns or name != SHARE]
    more = [] if classes else ["seeds"]
    rows = [
        row for row in block.rows if any(block.cells[row, name].ours for name in columns if (row, name) in block.cells)
    ]
    if not rows:
        return ["Not run."]
    lines = [
        f"| | {' | '.join([*map(column, columns), *more])} |",
        "| --- |" + " ---: |" * (len(columns) + len(more)),
    ]
    for row in rows:
        cells = [block.cells.get((row, name)) for name in columns]
        seeds = max((cell.seeds for cell in cells if cell is not None), default=0)
        texts = [_cell(cell, classes) for cell in cells]
        texts += [] if classes else [str(seeds) if row != ORIGINAL else ""]
        lines.append(f"| {readable(row)} | {' | '.join(texts)} |")
    return lines


def _cell(cell: Cell | None, with_original: bool = False) -> str:
    if cell is None or cell.ours is None:
        return "not run"
    if cell.change is None:
        return f"{cell.ours.value:.1f}"
    text = f"{cell.ours.value:.1f} {cell.change.value:+.1f}".replace("-", MINUS)
    text = f"**{text}**" if cell.change.count > 1 and not cell.change.low <= 0 <= cell.change.high else text
    return f"{cell.ours.value - cell.change.value:.1f} → {text}" if with_original else text
