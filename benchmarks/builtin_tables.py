"""The tables of benchmarks/builtin/TABLES.md: every experiment of `relevit reproduce all --data builtin` and its claims, from the
rows of single runs in benchmarks/builtin/results.csv.

    python benchmarks/builtin_tables.py                        # writes TABLES.md anew
    python benchmarks/builtin_tables.py --runs OUT/runs.csv    # first takes the rows of `relevit reproduce --out OUT` over

Rows of runs that are there already are replaced; how many of them have another value is printed: runs are seeded, so on the same
kind of processor and with the same versions there should be none.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from relevit.experiments.builtin_plan import GridPlan
from relevit.experiments.figures import SHARE, finding
from relevit.experiments.filled import Finding
from relevit.experiments.grids import Contrast
from relevit.experiments.measured_plan import MeasuredPlan
from relevit.experiments.multiple_testing import family
from relevit.experiments.page import GROUPS, column, title
from relevit.experiments.reproduce import RUN_COLUMNS, table
from relevit.experiments.table import EXPERIMENTS, ORDER
from relevit.files import atomic_write
from relevit.report.results import readable
from relevit.statistics import over_seeds

HERE = Path(__file__).parent / "builtin"
Key = tuple[str, ...]  # experiment, row, seed, set, group, figure
Values = dict[tuple[str, str, str, str], dict[int | None, float]]  # (row, set, group, figure) to seed to value


def read(path: Path) -> dict[Key, dict[str, str]]:
    """The rows of single runs, by what they are of."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != RUN_COLUMNS:
            raise SystemExit(f"{path} has the columns {reader.fieldnames}, not {RUN_COLUMNS}")
        rows = list(reader)
    return {tuple(row[name] for name in ("experiment", "row", "seed", "set", "group", "figure")): row for row in rows}


def merged(
    old: Mapping[Key, dict[str, str]], new: Mapping[Key, dict[str, str]]
) -> tuple[list[dict[str, str]], list[Key]]:
    """Both, in the order of the experiments and then as they come, and the keys that both have with different values."""
    both = {**old, **new}
    differing = [key for key in old if key in new and old[key]["value"] != new[key]["value"]]
    places = {name: number for number, name in enumerate([*ORDER, *(n for n in EXPERIMENTS if n not in ORDER)])}
    keys = sorted(both, key=lambda key: places[key[0]])  # a stable sort
    return [both[key] for key in keys], differing


def values_of(rows: Iterable[Mapping[str, str]]) -> dict[str, Values]:
    """By experiment. The seed of the original is None."""
    found: dict[str, Values] = {}
    for row in rows:
        place = (row["row"], row["set"], row["group"], row["figure"])
        seed = int(row["seed"]) if row["seed"] else None
        found.setdefault(row["experiment"], {}).setdefault(place, {})[seed] = float(row["value"])
    return found


def findings(name: str, values: Values) -> list[Finding]:
    """The claims that the experiment declares, as paired differences over the seeds that both sides have."""
    plan = EXPERIMENTS[name].builtin
    if isinstance(plan, GridPlan):
        return [
            _finding(claim, values, claim.on, claim.group, claim.figure, "accuracy") for claim in plan.grid.contrasts
        ]
    if isinstance(plan, MeasuredPlan):
        test = f"{plan.test} on {plan.data}"
        return [_finding(claim, values, plan.data, "", claim.on, test) for claim in plan.contrasts]
    return []


def _finding(claim: Contrast, values: Values, place: str, group: str, figure: str, test: str) -> Finding:
    ours, theirs = (values.get((row, place, group, figure), {}) for row in (claim.arm, claim.against))
    if claim.against == "original":
        theirs = dict.fromkeys(ours, theirs[None]) if theirs else {}
    both = sorted(seed for seed in ours if seed in theirs and seed is not None)
    return finding(claim, test, [ours[seed] - theirs[seed] for seed in both])


def claims_table(own: list[Finding], stays: Iterable[bool | None]) -> list[str]:
    """Markdown."""
    lines = ["| claim or question | compared | points | seeds | here it |", "| --- | --- | ---: | ---: | --- |"]
    for claim, kept in zip(own, stays, strict=True):
        points = "" if claim.mean is None else f"{claim.mean:+.1f} ({claim.low:+.1f} to {claim.high:+.1f})"
        after = {True: ", after Holm too", False: ", not after Holm", None: ""}[kept]
        lines.append(
            f"| {claim.says} | {readable(claim.compared)} | {points} | {claim.seeds} | {claim.verdict}{after} |"
        )
    return lines


def figures_table(values: Values, group: str, figures: set[str], across: list[str], order: list[str]) -> list[str]:
    """Markdown: a row for each model in the order of `order`, a column for each of `across`; changes in points, bold where their 95% interval over seeds
    excludes zero."""
    places = [place for place in values if place[2] == group and place[3] in figures]
    there = {place[0] for place in places}
    rows = [row for row in order if row in there] + sorted(there - set(order))
    if not rows:
        return ["Not run."]
    lines = [f"| | {' | '.join(column(name) for name in across)} | seeds |", "| --- |" + " ---: |" * (len(across) + 1)]
    for row in rows:
        cells, seeds = [], 0
        for name in across:
            place = next((p for p in places if p[0] == row and name in (p[1], p[3])), None)
            own = values[place] if place else {}
            if not place or not own:
                cells.append("not run")
                continue
            start = values.get(("original", *place[1:]), {}).get(None)
            seeds = max(seeds, sum(seed is not None for seed in own))
            cells.append(_cell(list(own.values()), None if row == "original" else start))
        lines.append(f"| {readable(row)} | {' | '.join(cells)} | {seeds or ''} |")
    return lines


def _cell(own: list[float], start: float | None) -> str:
    mean = over_seeds.mean(own).value
    if start is None:
        return f"{mean:.1f}"
    change = over_seeds.mean([value - start for value in own])
    text = f"{mean:.1f} {change.value:+.1f}".replace("-", "\u2212")
    return f"**{text}**" if change.count > 1 and not change.low <= 0 <= change.high else text


def classes_table(values: Values) -> list[str]:
    """Markdown: the change of every class, for rows that are "MODEL, CLASS"."""
    sets = list(dict.fromkeys(place[1] for place in values))
    classes = list(dict.fromkeys(place[0].partition(", ")[2] for place in values))
    model = next(place[0].partition(", ")[0] for place in values if not place[0].startswith("original"))
    lines = [f"| | {' | '.join(column(name) for name in sets)} |", "| --- |" + " ---: |" * len(sets)]
    for each in classes:
        cells = []
        for name in sets:
            before = values[f"original, {each}", name, "", "r1"][None]
            own = values.get((f"{model}, {each}", name, "", "r1"), {})
            cells.append(f"{before:.1f} → {_cell(list(own.values()), before)}" if own else "not run")
        lines.append(f"| {each} | {' | '.join(cells)} |")
    return lines


def document(values: Mapping[str, Values]) -> str:
    """TABLES.md."""
    own = {name: findings(name, values[name]) for name in values}
    claims = family(own)
    lines = [
        "# The paper's experiments on the built-in benchmark: tables",
        "",
        "Made by `python benchmarks/builtin_tables.py` from [results.csv](results.csv), a row for each run and figure with the command",
        "that yields it. How it was run and what follows from it is in [RESULTS.md](../RESULTS.md).",
        "",
        "Percent; beside them changes from the original in points, **bold** where their 95 % interval over seeds (Student's t) excludes",
        'zero. "Shifted" is the mean of the six shifted sets. Claims are paired differences over the seeds that both sides have.',
        "",
        f"{claims.stated} claims and questions. {claims.sentence}",
    ]
    for name in values:
        experiment = EXPERIMENTS[name]
        lines += ["", f"## {title(name)}: {experiment.description}", "", f"`relevit reproduce {name} --data builtin`"]
        if own[name]:
            lines += ["", *claims_table(own[name], [standing.stays for standing in claims.standings[name]])]
        plan = experiment.builtin
        if isinstance(plan, MeasuredPlan):
            arms = ["original", *(arm.row for arm in plan.arms)]
            lines += ["", *figures_table(values[name], "", set(plan.figures), list(plan.figures), arms)]
        elif isinstance(plan, GridPlan):
            each = "one picture" if plan.grid.views == 1 else f"{plan.grid.views} pictures"
            lines += ["", " ".join([f"Measured on {each} of each test object.", *plan.grid.notes])]
            arms = ["original", *(entry.row for entry in plan.grid.entries())]
            for figure in plan.grid.figures:
                for group in plan.grid.groups:
                    heading = ", ".join(filter(None, (column(figure), GROUPS[group])))
                    several = len(plan.grid.figures) * len(plan.grid.groups) > 1
                    lines += ["", f"{heading}:"] if several else []
                    sets = [name for name in plan.grid.sets if group == "all" or name != SHARE]
                    lines += ["", *figures_table(values[name], group, {figure, "share"}, sets, arms)]
        else:
            lines += ["", *classes_table(values[name])]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="runs.csv of `relevit reproduce`")
    parser.add_argument("--folder", type=Path, default=HERE, help="where results.csv and TABLES.md are")
    options = parser.parse_args()
    place = options.folder / "results.csv"
    rows = read(place) if place.exists() else {}
    if options.runs:
        new = read(options.runs)
        known = sum(key in rows for key in new)
        ordered, differing = merged(rows, new)
        atomic_write(place, table(ordered, RUN_COLUMNS))
        print(
            f"{len(new)} rows, {len(new) - known} new; {known} were there, {len(differing)} of them with other values"
        )
        for key in differing[:10]:
            print(f"  {', '.join(filter(None, key))}: {rows[key]['value']}, now {new[key]['value']}")
        rows = read(place)
    if not rows:
        raise SystemExit(f"{place} has no rows: name those of a run with --runs")
    atomic_write(options.folder / "TABLES.md", document(values_of(rows.values())))
    print(f"{options.folder / 'TABLES.md'}: {len(rows)} rows")


if __name__ == "__main__":
    main()
