"""The tables of benchmarks/builtin/TABLES.md: every experiment of `relevit reproduce all --data builtin` and its claims, from the
rows of single runs in benchmarks/builtin/results.csv.

    python benchmarks/builtin_tables.py                        # writes TABLES.md anew
    python benchmarks/builtin_tables.py --runs OUT/runs.csv    # first takes the rows of `relevit reproduce --out OUT` over

Rows of runs that are there already are replaced; how many of them have another value is printed: runs are seeded, so on the same
kind of processor and with the same versions there should be none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from relevit.errors import UserError
from relevit.experiments.table import EXPERIMENTS
from relevit.experiments.tables import RUN_COLUMNS, markdown, read_runs, table, values_of
from relevit.files import atomic_write

HERE = Path(__file__).parent / "builtin"
Rows = dict[tuple[str, ...], dict[str, str]]  # by experiment, row, seed, set, group, figure


def keyed(path: Path) -> Rows:
    """The rows of single runs, by what they are of."""
    names = ("experiment", "row", "seed", "set", "group", "figure")
    return {tuple(row[name] for name in names): row for row in read_runs(path)}


def merged(old: Rows, new: Rows) -> Rows:
    """Both, in the order of the experiments and then as they come; tells how many values differ."""
    known = [key for key in new if key in old]
    differing = [key for key in old if key in new and old[key]["value"] != new[key]["value"]]
    print(
        f"{len(new)} rows, {len(new) - len(known)} new; {len(known)} were there, {len(differing)} of them with other values"
    )
    for key in differing[:10]:
        print(f"  {', '.join(filter(None, key))}: {old[key]['value']}, now {new[key]['value']}")
    order = list(EXPERIMENTS)
    return dict(sorted({**old, **new}.items(), key=lambda item: order.index(item[0][0])))  # a stable sort


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="runs.csv of `relevit reproduce`")
    parser.add_argument("--folder", type=Path, default=HERE, help="where results.csv and TABLES.md are")
    options = parser.parse_args()
    place = options.folder / "results.csv"
    try:
        rows = keyed(place) if place.exists() else {}
        if options.runs:
            rows = merged(rows, keyed(options.runs))
            atomic_write(place, table(list(rows.values()), RUN_COLUMNS))
    except UserError as error:
        raise SystemExit(str(error)) from None
    if not rows:
        raise SystemExit(f"{place} has no rows: name those of a run with --runs")
    atomic_write(options.folder / "TABLES.md", markdown(values_of(rows.values())))
    print(f"{options.folder / 'TABLES.md'}: {len(rows)} rows")


if __name__ == "__main__":
    main()
