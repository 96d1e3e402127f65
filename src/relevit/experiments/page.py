"""The page of `relevit reproduce`: each experiment with its claims and its table, published figures beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relevit.experiments.multiple_testing import AfterHolm, Family
from relevit.experiments.plan import Data
from relevit.experiments.results import MEASURED, Cell, Results
from relevit.experiments.table import EXPERIMENTS
from relevit.experiments.tables import blocks
from relevit.experiments.words import column, title
from relevit.report.templating import template_environment

_VERDICTS = {
    "holds": "hold",
    "does not hold": "do not hold",
    "not settled": "are not settled",
    "needs two models": "need two models",
    "not run": "were not run",
}


def render(results: Mapping[str, Results], about: Mapping[str, Any], data: Data, command: str, claims: Family) -> str:
    """The page as text. It asks nothing of a network."""
    builtin = data.name == "builtin"
    cells = [cell for own in results.values() for cell in own.cells]
    over = "seeds" if builtin else "models"
    jobs = about["jobs"]
    setup = {
        "command": command,
        "data": "the built-in benchmark" if builtin else data.name,
        "protocol": data.protocol,
        "runs": f"{jobs['done']} done, {jobs['failed']} failed, {jobs['skipped']} skipped",
        "time of the runs": f"{about['hours']:.1f} hours of one {'core' if builtin else 'process'} each",
        "hardware": "; ".join(about["hardware"]),
        "versions": "; ".join(about["versions"]),
    }
    environment = template_environment(kind=kind, column=column, title_of=title, p=p_text)
    return environment.get_template("experiments.html").render(
        title="The paper's experiments" + (" on the built-in benchmark" if builtin else ""),
        summary=_summary(results, cells, over, claims),
        parts=[_part(name, own, claims.standings[name]) for name, own in results.items()],
        tested=claims.tested,
        over=over,
        published=any(cell.published is not None for cell in cells),
        setup=setup,
        not_done=about["not_done"],
        notes=(),
    )


def _summary(results: Mapping[str, Results], cells: Sequence[Cell], over: str, claims: Family) -> list[str]:
    """How much is filled, and how the claims stand."""
    measured = sum(cell.state == MEASURED for cell in cells)
    verdicts = [finding.verdict for own in results.values() for finding in own.findings]
    sentences = [f"{measured} of {len(cells)} cells are filled."]
    if verdicts:
        counts = ", ".join(f"{verdicts.count(word)} {text}" for word, text in _VERDICTS.items() if word in verdicts)
        sentences.append(f"Of {len(verdicts)} claims and questions, each as a paired difference over {over}: {counts}.")
    return [*sentences, claims.sentence] if claims.sentence else sentences


def kind(cell: Cell) -> str:
    """Whether a change is settled: better, worse, or open."""
    change = cell.change
    if change is None or (change.over == "seeds" and change.count < 2) or not change.settled:
        return "open"
    return "better" if change.low > 0 else "worse"


def p_text(p: float) -> str:
    """A p-value in three decimals."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _part(name: str, results: Results, corrected: Sequence[AfterHolm]) -> dict[str, Any]:
    return {
        "name": name,
        "title": title(name),
        "description": EXPERIMENTS[name].description,
        "where": EXPERIMENTS[name].where,
        "findings": list(zip(results.findings, corrected, strict=True)),
        "blocks": blocks(results.cells),
        "protocol": results.protocol,
        "notes": results.notes,
        "pages": results.pages,
    }
