"""The page of `relevit reproduce`: each experiment with its claims and its table, published figures beside ours."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from relevit.experiments.filled import MEASURED, Data, Filled, Row
from relevit.experiments.multiple_testing import Family, Standing
from relevit.experiments.table import EXPERIMENTS, TEST_FIGURES
from relevit.report.plots import COLOURS
from relevit.report.results import readable, signed
from relevit.report.templating import template_environment

GROUPS = {"all": "", "set_a": "Classes of set A", "rest": "The other classes"}
FIGURES = {"r1": "R@1", "r5": "R@5"}
WRITTEN = {"objectnet": "ObjectNet", **TEST_FIGURES, **FIGURES}


def render(filled: Mapping[str, Filled], about: Mapping[str, Any], data: Data, command: str, claims: Family) -> str:
    """The page as text. It asks nothing of a network."""
    rows = [row for own in filled.values() for row in own.rows]
    measured = sum(row.state == MEASURED for row in rows)
    over = "seeds" if data.name == "builtin" else "models"
    verdicts = [finding.verdict for own in filled.values() for finding in own.findings]
    summary = [f"{measured} of {len(rows)} cells are filled."]
    if verdicts:
        words = {
            "holds": "hold",
            "does not hold": "do not hold",
            "not settled": "are not settled",
            "needs two models": "need two models",
            "not run": "were not run",
        }
        counts = ", ".join(f"{verdicts.count(word)} {text}" for word, text in words.items() if word in verdicts)
        summary.append(f"Of {len(verdicts)} claims and questions, each as a paired difference over {over}: {counts}.")
    summary += [claims.sentence] if claims.sentence else []
    jobs = about["jobs"]
    setup = {
        "command": command,
        "data": "the built-in benchmark" if data.name == "builtin" else data.name,
        "protocol": data.protocol,
        "runs": f"{jobs['done']} done, {jobs['failed']} failed, {jobs['skipped']} skipped",
        "time of the runs": f"{about['hours']:.1f} hours of one {'core' if data.name == 'builtin' else 'process'} each",
        "hardware": "; ".join(about["hardware"]),
        "versions": "; ".join(about["versions"]),
    }
    environment = template_environment(
        readable=readable, signed=signed, data_uri=data_uri, kind=kind, column=column, title_of=title, p=p_text
    )
    return environment.get_template("experiments.html").render(
        title="The paper's experiments" + (" on the built-in benchmark" if data.name == "builtin" else ""),
        summary=summary,
        parts=[_part(name, own, claims.standings[name]) for name, own in filled.items()],
        tested=claims.tested,
        over=over,
        published=any(row.published is not None for row in rows),
        setup=setup,
        not_done=about["not_done"],
        colours=COLOURS,
    )


def title(name: str) -> str:
    """An experiment as the paper calls it."""
    where = EXPERIMENTS[name].where
    return where if where.startswith(("Table", "Figure", "Appendix")) else readable(name).capitalize()


def column(name: str) -> str:
    """The head of a column, which breaks at spaces alone: `imagenet-a` becomes ImageNet-A, `r1` R@1."""
    if name.startswith("imagenet"):
        family, _, rest = name.partition("-")
        text = "-".join(
            filter(None, (family.replace("imagenet", "ImageNet"), rest if rest.startswith("v2") else rest.capitalize()))
        )
    else:
        text = WRITTEN.get(name, readable(name.replace("si-score-", "SI-Score ")))
    return text.replace("-", "\u2011")


def data_uri(png: bytes) -> str:
    """A PNG to stand in the page itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def kind(row: Row) -> str:
    """Whether a change is settled: better, worse, or open."""
    if row.change_low is None or row.change_high is None or row.seeds == 1 or row.change_low <= 0 <= row.change_high:
        return "open"
    return "better" if row.change_low > 0 else "worse"


def p_text(p: float) -> str:
    """A p-value in three decimals."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _part(name: str, filled: Filled, standings: Sequence[Standing]) -> dict[str, Any]:
    return {
        "name": name,
        "title": title(name),
        "description": EXPERIMENTS[name].description,
        "where": EXPERIMENTS[name].where,
        "findings": list(zip(filled.findings, standings, strict=True)),
        "blocks": _blocks(filled.rows),
        "protocol": filled.protocol,
        "notes": filled.notes,
        "pictures": filled.pictures,
        "pages": filled.pages,
    }


def _blocks(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A table for each figure and group of classes."""
    kinds = dict.fromkeys((row.figure, row.group) for row in rows)
    blocks = []
    for figure, group in kinds:
        own = [row for row in rows if (row.figure, row.group) == (figure, group)]
        title = ", ".join(filter(None, (FIGURES.get(figure, figure), GROUPS.get(group, group))))
        blocks.append(
            {
                "title": title if len(kinds) > 1 else "",
                "names": list(dict.fromkeys(row.row for row in own)),
                "columns": list(dict.fromkeys(row.column for row in own)),
                "cells": {(row.row, row.column): row for row in own},
            }
        )
    return blocks
