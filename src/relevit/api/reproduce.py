"""`relevit reproduce`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from relevit import terminal
from relevit.api import types
from relevit.api.types import command_line, public
from relevit.errors import ArgumentError, UserError

if TYPE_CHECKING:
    from relevit.experiments.reproduce import Planned
    from relevit.report.table import Table


class Reproduced(NamedTuple):
    """What results.json says, and how many cells of the tables are measured."""

    results: dict[str, Any]
    measured: int
    cells: int

    @property
    def exit_code(self) -> int:
        """1 where a cell is not filled."""
        return int(self.measured < self.cells)


@public
def reproduce(
    names: types.Names,
    *,
    out: types.Folder,
    data: types.Folder = "builtin",
    dry_run: bool = False,
    workers: types.Count | None = None,
    seeds: types.Count | None = None,
    ray: Annotated[str | None, types.Shown(metavar="ADDRESS")] = None,
    slurm: bool = False,
    slurm_options: types.Options = None,
    protocol: types.Protocol | None = None,
    models: types.Names = (),
    weights: types.Folder | None = None,
    epochs: types.Count | None = None,
    classes: types.Count | None = None,
    limit: types.Count | None = None,
    mask_model: types.Model | None = None,
    self_supervised: types.Model | None = None,
) -> Reproduced | None:
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

    Returns:
        The results; None of a dry run.
    """
    given = dict(locals())
    from relevit.experiments.engines.local import gpus
    from relevit.experiments.reproduce import plan
    from relevit.experiments.reproduce import reproduce as run
    from relevit.processes import cores

    if ray is not None and slurm:
        raise UserError("--ray and --slurm exclude each other: name one")
    if slurm_options and not slurm:
        raise UserError("--slurm-options are for --slurm: add it, or leave them out")
    known = _data(given)
    planned = plan(names, known, out)
    devices = gpus() if data != "builtin" and ray is None and not slurm else []
    at_once = workers or len(devices) or (cores() if ray is None and not slurm else 1)
    if dry_run:
        terminal.tell(_planned_table(f"Runs for {', '.join(names)} on {data}", planned))
    terminal.tell(_planned_counts(planned, at_once, data == "builtin"))
    if devices:
        terminal.tell(f"GPUs: {', '.join(devices)}, {at_once} runs at a time")
    if dry_run:
        return None
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
        command=command_line(reproduce, given),
        say=terminal.tell,
    )
    rows = [row for experiment in filled.values() for row in experiment.cells]
    written = json.loads((Path(out) / "results.json").read_text())
    written["experiments"] = {name: written["experiments"][name] for name in filled}
    return Reproduced(written, sum(row.state == "measured" for row in rows), len(rows))


def show(result: Reproduced, given: Mapping[str, Any]) -> None:
    """Each finding in a line, and how many cells are filled."""
    for name, experiment in result.results["experiments"].items():
        for finding in experiment["findings"]:
            points = "" if finding["mean"] is None else " {mean:+.1f} ({low:.1f} to {high:.1f})".format(**finding)
            points += ", but not after Holm's correction" if finding["stays"] is False else ""
            terminal.show(f"{name}: {finding['says']}: {finding['verdict']}{points}")
    family = result.results["family"]
    if family["says"]:
        terminal.show(f"Claims of the report: {family['stated']}. {family['says']}")
    terminal.show(f"{result.measured} of {result.cells} cells filled. Report: {given['out']}/report.html")


def _data(given: Mapping[str, Any]) -> Any:
    """The data sets below a folder and the models, or the built-in benchmark."""
    from dataclasses import replace

    from relevit.experiments.experiment import Data
    from relevit.experiments.sources.models import chosen_models
    from relevit.experiments.sources.places import find_places

    root, seeds, weights = given["data"], given["seeds"], given["weights"]
    settings = {name: given[name] for name in ("epochs", "classes", "limit", "mask_model")}
    if root == "builtin":
        for name in ("epochs", "classes", "limit", "protocol", "weights", "models", "mask_model", "self_supervised"):
            if given[name]:
                raise ArgumentError(name, "is for a folder of data sets, not for the built-in benchmark")
        return Data(root, seeds=seeds)
    protocol: Any = given["protocol"] or "paper"
    chosen = chosen_models(list(given["models"]), weights)
    backbone = given["self_supervised"]
    if backbone is not None:
        if "=" not in backbone:
            raise ArgumentError(
                "self_supervised", f"must be NAME=ARCHITECTURE or NAME=ARCHITECTURE@FILE, not {backbone}"
            )
        probed = settings["self_supervised"] = replace(chosen_models([backbone], weights)[0], probe=True)
        if any(model.name == probed.name for model in chosen):
            raise ArgumentError("self_supervised", f"has the name of one of --models, {probed.name}: give it another")
    found, missing = find_places(root, protocol, chosen)
    terminal.tell(*(f"found {name}: {path}" for name, path in found.items()))
    terminal.tell(*(f"not there, {name}: {reason}" for name, reason in missing.items()))
    return Data(root, found, missing, seeds, protocol, chosen, settings)


def _planned_table(title: str, planned: list[Planned]) -> Table:
    from relevit.report.table import Table

    rows = []
    for entry in planned:
        seconds = entry.job.seconds
        took = f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"
        rows.append((entry.experiment, entry.job.key, entry.state, took, ", ".join(entry.job.needs)))
    return Table(title, ("experiment", "run", "state", "CPU core", "needs"), rows, left=(0, 1, 2, 4))


def _planned_counts(planned: list[Planned], at_once: int, builtin: bool) -> str:
    """How many runs there are by state, and how long they will take."""
    waiting = [entry for entry in planned if entry.state in ("to do", "failed before")]
    hours = sum(entry.job.seconds for entry in waiting) / 3600 / max(1, min(at_once, len(waiting)))
    done = sum(entry.state == "done" for entry in planned)
    not_needed = sum(entry.state.startswith("not needed") for entry in planned)
    lacking = len(planned) - len(waiting) - done - not_needed
    rough = "" if builtin else ", a rough estimate; GPUs were not measured and are far quicker"
    return (
        f"{len(planned)} runs: {done} done, {len(waiting)} to do (about {hours:.1f} hours with {at_once} CPU cores{rough})"
        + (f", {lacking} without data" if lacking else "")
        + (f", {not_needed} not needed" if not_needed else "")
    )
