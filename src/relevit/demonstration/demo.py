"""`relevit demo`: one seed of the story, or the whole grid, in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from relevit.demonstration.full import run_full
from relevit.demonstration.run import run_one
from relevit.errors import UserError
from relevit.files import atomic_write


def demo(out: str | Path | None = None, full: bool = False, seed: int = 0) -> Path:
    """Run the built-in benchmark and return the report's path.

    out: the folder to write to; None for runs/demo, or runs/demo-full. A finished one is left alone: it says where it
    is. An interrupted one goes on. full: the whole grid, five seeds and two numbers of samples a class, in place of one
    seed.
    """
    folder = Path(out) if out is not None else Path("runs/demo-full" if full else "runs/demo")
    report, console = folder / "report.html", Console()
    if report.exists():
        console.print(f"The demo was run before: its report is {report}, its figures are {folder / 'metrics.json'}.")
        console.print(
            f"To run it again: relevit demo{' --full' if full else ''} --out {folder}-2   (or remove {folder})"
        )
        return report
    if folder.exists() and any(folder.iterdir()) and not (folder / "demo.json").exists():
        raise UserError(f"{folder} holds other files: name another folder with --out")
    request = json.dumps({"full": full, "seed": seed}) + "\n"
    if (folder / "demo.json").exists() and (folder / "demo.json").read_text() != request:
        raise UserError(f"{folder} holds an unfinished demo with other settings: name another folder with --out")
    atomic_write(folder / "demo.json", request)
    if full:
        return run_full(folder, console)
    return run_one(folder, seed, console)
