"""`relevit reproduce`."""

from __future__ import annotations

from typing import Any, Literal

from relevit.terminal import cores, stdout

_NONE: list[str] = []


def reproduce(
    names: list[str],
    out: str,
    data: str = "builtin",
    dry_run: bool = False,
    workers: int | None = None,
    seeds: int | None = None,
    ray: str | None = None,
    slurm: bool = False,
    slurm_options: dict | None = None,
    protocol: Literal["paper", "standard"] | None = None,
    models: list[str] = _NONE,
    weights: str | None = None,
    epochs: int | None = None,
    classes: int | None = None,
    limit: int | None = None,
    mask_model: str | None = None,
    self_supervised: str | None = None,
) -> int:
    """Run the paper's experiments and show them next to its published figures.

    Each experiment is a grid of runs whose results are kept in OUT/jobs: the same call goes on where it was stopped, what is done is
    not done again, and a run that failed is tried again. OUT/report.html, results.csv, runs.csv and jobs.csv hold the tables. A cell without
    data says so.

    Args:
        names: experiments, such as table1, figure4 or appendix_h; all runs every one that the data allows.
        out: the folder for the results.
        data: builtin for the built-in benchmark, or a folder with data sets in the layouts of their publishers.
        dry_run: lists the runs, what data each needs, their time on a CPU core by estimate and which are done; runs nothing.
        workers: runs at a time; by default one a core, for a folder of data sets one a GPU where there are any.
        seeds: seeds of each run at most; by default each experiment's own number.
        ray: the address of a Ray cluster to run on (auto for the one that this machine belongs to).
        slurm: runs by SLURM, through submitit.
        slurm_options: parameters of submitit for SLURM, such as {slurm_partition: gpu, timeout_min: 600}.
        protocol: for a folder of data sets, paper (the default) as for the published figures, or standard, each model's own preprocessing and the benchmarks' own classes.
        models: for a folder of data sets, models of the paper (ViT-B, AR-S, DeiT-B, ...) or of your own as NAME=ARCHITECTURE or NAME=ARCHITECTURE@FILE; by default the paper's seven.
        weights: a folder with files of weights, called by timm's name or as they were published; by default timm's own are downloaded.
        epochs: for a folder of data sets, epochs of a fine-tuning; by default the paper's 50.
        classes: for a folder of data sets, classes of set A; by default the paper's 500.
        limit: for a folder of data sets, images of tests beside accuracy at most; by default each experiment's own number.
        mask_model: for a folder of data sets, the model whose features automatic masks are made of, as for `relevit masks`; by default DINO ViT-B/16.
        self_supervised: for a folder of data sets, the backbone of appendix L as NAME=ARCHITECTURE or NAME=ARCHITECTURE@FILE; by default DINO ViT-B/16.
    """
    import json
    import shlex
    import sys
    from pathlib import Path

    from rich.table import Table

    from relevit.errors import UserError
    from relevit.experiments.engines.local import gpus
    from relevit.experiments.filled import Data
    from relevit.experiments.reproduce import plan
    from relevit.experiments.reproduce import reproduce as run

    for name, value in (("seeds", seeds), ("workers", workers)):
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    if ray is not None and slurm:
        raise UserError("--ray and --slurm exclude each other: name one")
    if slurm_options and not slurm:
        raise UserError("--slurm-options are for --slurm: add it, or leave them out")
    numbers = {"epochs": epochs, "classes": classes, "limit": limit}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    if data == "builtin":
        others = {"protocol": protocol, "weights": weights, "models": models or None}
        others |= {"mask-model": mask_model, "self-supervised": self_supervised}
        given = [name for name, value in {**numbers, **others}.items() if value is not None]
        if given:
            raise UserError(f"--{given[0]} is for a folder of data sets, not for the built-in benchmark")
        known = Data(data, seeds=seeds)
    else:
        settings = {**numbers, "mask_model": mask_model}
        known = _found(data, seeds, protocol or "paper", models, weights, settings, self_supervised)
    console = stdout()
    planned = plan(names, known, out)
    todo = [entry for entry in planned if entry.state in ("to do", "failed before")]
    devices = gpus() if data != "builtin" and ray is None and not slurm else []
    at_once = workers or len(devices) or (cores() if ray is None and not slurm else 1)
    hours = sum(entry.job.seconds for entry in todo) / 3600 / max(1, min(at_once, len(todo)))
    if dry_run:
        table = Table(title=f"Runs for {', '.join(names)} on {data}", title_justify="left")
        for heading in ("experiment", "run", "state", "CPU core", "needs"):
            table.add_column(heading, justify="right" if heading == "CPU core" else "left", overflow="fold")
        for entry in planned:
            took = _duration(entry.job.seconds)
            table.add_row(entry.experiment, entry.job.key, entry.state, took, ", ".join(entry.job.needs))
        console.print(table)
    done = sum(entry.state == "done" for entry in planned)
    idle = sum(entry.state.startswith("not needed") for entry in planned)
    lacking = len(planned) - len(todo) - done - idle
    rough = "" if data == "builtin" else ", a rough estimate; GPUs were not measured and are far quicker"
    console.print(
        f"{len(planned)} runs: {done} done, {len(todo)} to do (about {hours:.1f} hours with {at_once} CPU cores{rough})"
        + (f", {lacking} without data" if lacking else "")
        + (f", {idle} not needed" if idle else ""),
        highlight=False,
        soft_wrap=True,
    )
    if devices:
        console.print(f"GPUs: {', '.join(devices)}, {at_once} runs at a time", highlight=False, soft_wrap=True)
    if dry_run:
        return 0
    engine = "ray" if ray is not None else "slurm" if slurm else "local"
    options: dict[str, Any] = {"devices": devices} if devices else {}
    if ray is not None:
        options = {"address": ray, "gpu": data != "builtin"}
    elif slurm:
        options = dict(slurm_options or {})
    filled = run(
        names,
        known,
        out,
        engine=engine,
        workers=workers,
        options=options,
        command=shlex.join(["relevit", *sys.argv[1:]]),
        say=lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
    )
    written = json.loads((Path(out) / "results.json").read_text())
    for name in filled:
        for finding in written["experiments"][name]["findings"]:
            points = "" if finding["mean"] is None else " {mean:+.1f} ({low:.1f} to {high:.1f})".format(**finding)
            points += ", but not after Holm's correction" if finding["stays"] is False else ""
            console.print(
                f"{name}: {finding['says']}: {finding['verdict']}{points}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
    if written["family"]["says"]:
        text = f"Claims of the report: {written['family']['stated']}. {written['family']['says']}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    measured = sum(row.state == "measured" for own in filled.values() for row in own.rows)
    total = sum(len(own.rows) for own in filled.values())
    console.print(f"{measured} of {total} cells filled. Report: {out}/report.html", highlight=False, soft_wrap=True)
    return 0 if measured == total else 1


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"


def _found(
    root: str,
    seeds: int | None,
    protocol: str,
    models: list[str],
    weights: str | None,
    settings: dict[str, Any],
    self_supervised: str | None,
) -> Any:
    """The data sets below a folder, and the models."""
    from dataclasses import replace

    from relevit.errors import UserError
    from relevit.experiments.filled import Data
    from relevit.experiments.real.models import chosen_models
    from relevit.experiments.real.places import find_places

    chosen = chosen_models(models, weights)
    if self_supervised is not None:
        if "=" not in self_supervised:
            raise UserError(
                f"--self-supervised must be NAME=ARCHITECTURE or NAME=ARCHITECTURE@FILE, not {self_supervised}"
            )
        settings["self_supervised"] = replace(chosen_models([self_supervised], weights)[0], probe=True)
    found, missing = find_places(root, protocol, chosen)
    for name, path in found.items():
        stdout().print(f"found {name}: {path}", highlight=False, markup=False, soft_wrap=True)
    for name, reason in missing.items():
        stdout().print(f"not there, {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    return Data(root, found, missing, seeds, protocol, chosen, settings)
