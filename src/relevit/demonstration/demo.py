"""`relevit demo`: one seed of the story, or the whole grid, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from relevit.demonstration.full import run_full
from relevit.demonstration.run import run_one
from relevit.folders import OwnedFolder


def demo(out: str | Path | None = None, full: bool = False, seed: int = 0) -> Path:
    """Run the built-in benchmark and return the report's path.

    out: the folder to write to; None for runs/demo, or runs/demo-full. A finished one is left alone: it says where it
    is. An interrupted one goes on. full: the whole grid, five seeds and two numbers of samples a class, in place of one
    seed. Raises UserError for a folder of something else, or of a demo with other settings.
    """
    place = Path(out) if out is not None else Path("runs/demo-full" if full else "runs/demo")
    report, console = place / "report.html", Console(highlight=False)
    if report.exists():
        OwnedFolder(place, "relevit demo", None).tidy()
        console.print(f"The demo was run before: its report is {report}, its figures are {place / 'metrics.json'}.")
        console.print(f"To run it again: relevit demo{' --full' if full else ''} --out {place}-2   (or remove {place})")
        return report
    with OwnedFolder(place, "relevit demo", {"full": full, "seed": seed}) as folder:
        return run_full(folder, console) if full else run_one(place, seed, console)
