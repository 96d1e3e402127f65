"""`relevit doctor`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from relevit import terminal
from relevit.api import types
from relevit.api.types import public

if TYPE_CHECKING:
    from relevit.diagnosis import Diagnosis, Finding
    from relevit.report.table import Table

_SHOWN = 3  # examples in the table; all are in the JSON file
_TITLES = {"fault": "Faults: a run would stop", "warning": "Warnings: worth a look", "note": "Notes: handled"}


class Checkup(NamedTuple):
    """What was found about a model and a data set."""

    model: Diagnosis
    data: Diagnosis

    @property
    def findings(self) -> list[Finding]:
        return [*self.model.findings, *self.data.findings]

    @property
    def exit_code(self) -> int:
        """1 if anything would stop a run, else 0."""
        return int(self.model.stops or self.data.stops)


@public
def doctor(
    *,
    images: types.Folder,
    model: types.Model,
    masks: types.Folder | None = None,
    checkpoint: types.Output | None = None,
    num_classes: types.Count | None = None,
    model_args: types.Options = None,
    class_map: types.ClassMap | None = None,
    ignore: types.Folder | None = None,
    manifest: types.File | None = None,
    protocol: types.Protocol = "standard",
    workers: types.Index = 0,
    out: types.Output | None = None,
    progress: bool = True,
) -> Checkup:
    """Check a data set and a model before a run: all faults at once, what deserves a look, and the preprocessing.

    Every image and mask is read in full, once. A model whose weights are at hand is asked for the classes of up to 128 images, which shows
    whether its head was trained. Nothing is trained, changed or downloaded. The exit code is 1 if anything would stop a run, else 0.

    Args:
        images: the folder of class folders with images, DIR/<class>/<image>.
        masks: the folder of masks; by default the alpha channel of the images.
        ignore: a folder as that of the masks, white where pixels are neither object nor background.
        manifest: a CSV file that names the images of the run (relevit split; a run's split.csv); no others are read.
        protocol: preprocessing that the run is to have, the model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).
        workers: threads that read images; 0 reads in this one.
        out: a JSON file for all findings, with every file's name.

    Returns:
        The findings; `exit_code` is 1 if anything would stop a run.
    """
    from relevit.diagnosis import Weights, examine_data, examine_head, examine_model
    from relevit.files import atomic_write
    from relevit.folders import check_new_file
    from relevit.models.loading import load, names_file

    if out is not None:
        check_new_file(out)
    weights: Weights = (
        "file" if checkpoint is not None or names_file(model) else "checkpoint" if _is_local(model) else "timm"
    )
    pretrained = weights != "timm"  # weights at hand are read, which shows whether they fit; others are not downloaded
    arguments: dict[str, Any] = {"checkpoint": checkpoint, "num_classes": num_classes, "model_args": model_args}
    net, view = load(model, pretrained=pretrained, protocol=protocol, **arguments)
    of_model = examine_model(net, protocol=protocol, weights=weights, name=str(model))
    with terminal.progress("reading") as count:
        of_data = examine_data(
            images,
            masks,
            model=net,
            class_map=class_map,
            ignore=ignore,
            manifest=manifest,
            protocol=protocol,
            workers=workers,
            progress=count,
        )
    if weights != "timm" and not of_model.stops:
        with terminal.progress("asking the model") as count:
            of_head = examine_head(net, view, of_data, name=str(model), progress=count)
        of_model.facts.update(of_head.facts)
        of_model.findings.extend(of_head.findings)
    found = Checkup(of_model, of_data)
    if out is not None:
        report = {"model": of_model.as_json(), "data": of_data.as_json(), "stops": bool(found.exit_code)}
        atomic_write(out, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return found


def show(found: Checkup, given: Mapping[str, Any]) -> None:
    """Facts, findings by level, and whether a run would start."""
    from relevit.diagnosis import LEVELS
    from relevit.report.table import Table

    terminal.show(
        Table(f"Model: {given['model']}", ("", ""), list(found.model.facts.items()), left=(0, 1)),
        Table(f"Data: {given['images']}", ("", ""), list(found.data.facts.items()), left=(0, 1)),
    )
    for level in LEVELS:
        findings = [finding for finding in found.findings if finding.level == level]
        if findings:
            terminal.show(_table(_TITLES[level], findings))
    terminal.show(_verdict(found.findings))
    if given["out"] is not None:
        terminal.show(f"all findings: {given['out']}")


def _is_local(model: Any) -> bool:
    """Whether a model is one whose weights lie on this machine, as `load` takes it."""
    from timm.models import is_model

    if not isinstance(model, str):
        return True
    return model == "builtin" or (Path(model.removeprefix("local-dir:")).exists() and not is_model(model))


def _table(title: str, findings: list[Finding]) -> Table:
    from relevit.report.table import Cell, Table

    rows = []
    for finding in findings:
        lines = [where.file + (f" ({where.detail})" if where.detail else "") for where in finding.where[:_SHOWN]]
        if len(finding.where) > _SHOWN:
            lines.append(f"... and {len(finding.where) - _SHOWN} more")
        examples = Cell("".join(lines[:1]), below=lines[1:])
        rows.append((finding.kind, str(len(finding.where)), examples, finding.remedy))
    return Table(title, ("kind", "count", "examples", "what to do"), rows, left=(0, 2, 3))


def _verdict(findings: list[Finding]) -> str:
    """The last line: whether a run would start."""
    faults = sum(len(finding.where) for finding in findings if finding.level == "fault")
    warnings = sum(finding.level == "warning" for finding in findings)
    look = f"{warnings} kind{'s' * (warnings != 1)} of warnings" if warnings else "no warnings"
    if not faults:
        return f"Nothing would stop a run; {look}."
    return f"{faults} fault{'s' * (faults != 1)} would stop a run (finetune --skip-bad leaves bad samples out); {look}."
