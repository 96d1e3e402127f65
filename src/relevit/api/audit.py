"""`relevit audit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from relevit import terminal
from relevit.api import types
from relevit.api.types import command_line, public
from relevit.errors import UserError

if TYPE_CHECKING:
    from relevit.auditing.pictures import AuditPictures, MakeMasks
    from relevit.auditing.result import Audit
    from relevit.processes import Processes
    from relevit.report.table import Table
    from relevit.statistics.estimate import Estimate

_SHOWN = 5  # classes and images named on the terminal
_DOUBTFUL = 1e-6  # confidence of a mask: below, patches and edges tell different things


@public
def audit(
    models: types.Models,
    *,
    images: types.Folder,
    out: types.Folder = "runs/audit",
    masks: types.Folder | None = None,
    mask_model: types.Model | None = None,
    labels: Literal["auto", "folders", "predicted"] = "auto",
    class_map: types.ClassMap | None = None,
    limit: types.Count | None = None,
    seed: types.Index = 0,
    protocol: types.Protocol = "standard",
    batch_size: types.Count = 32,
    workers: types.Count | None = None,
    device: types.Device = None,
    progress: bool = True,
) -> Audit:
    """Tell whether a classifier looks at the background, and whether the background misleads it.

    Puts the objects of your own images on each other's backgrounds, removes and blurs the background, and removes the object; measures
    accuracy on each, and how much of the relevance lies on the background. Writes OUT/audit.html with a verdict in plain sentences, the
    classes that depend most on their background, and examples; OUT/audit.json with every figure; OUT/images.csv with a row an image.
    Several models are shown side by side, with their differences from the first. The same call goes on where it was stopped; started by
    torchrun or accelerate launch, the processes share the images.

    Args:
        models: one or several models, each named as for `relevit evaluate`.
        images: a folder of class folders, or of images whose classes are not known; builtin takes the built-in benchmark.
        out: the folder for the report.
        masks: masks of the same relative names, grey PNG, 255 on the object; without them they are made (TokenCut, as by relevit masks) in OUT/masks, and an audit that was stopped goes on with them.
        mask_model: whose features find the objects where there are no masks, such as vit_base_patch16_224.dino; by default the first model's own.
        labels: where the classes of the images come from, their folders or the first model's answers; auto takes folders where there are any.
        limit: audits this many images, drawn by the seed as evenly over the classes as can be.
        seed: of the backgrounds that are exchanged, and of all other draws.
        workers: processes that make pictures; by default one for each core.

    Returns:
        The figures and sentences of the report.
    """
    given = dict(locals())
    from contextlib import ExitStack
    from functools import partial

    from relevit.auditing.folder import ANSWERS, check_place, own, write_audit
    from relevit.auditing.models import audit_models
    from relevit.models.fingerprints import of_weights
    from relevit.models.loading import labelled, load, load_several
    from relevit.processes import Processes, cores, pick_device

    place = Path(out)
    _check_inputs(images, masks, mask_model, place)
    check_place(place)
    team, processes = Processes(device), workers or cores()
    home = pick_device(device) if team.count == 1 else str(team.device)
    first, model = next(iter(labelled(models).items()))
    loaded = load_several(models, protocol, home)
    net = loaded[first][0]
    request: dict[str, Any] = {"images": images if images == "builtin" else str(Path(images).resolve())}
    if masks is not None:
        request["masks"] = str(Path(masks).resolve())
    elif images != "builtin":
        net = net if mask_model is None else load(mask_model, device=home)[0]
        request |= {"mask model": str(mask_model or model), "weights": of_weights(net.state_dict())}
    folder, makes_masks = own(place, request), masks is None and images != "builtin"
    with ExitStack() as stack:
        if makes_masks:
            stack.enter_context(folder)
        make_masks = partial(_make_masks, net, Path(images), place, processes, team) if makes_masks else None
        result = audit_models(
            loaded,
            _pictures(given, make_masks, processes),
            class_map=class_map,
            seed=seed,
            batch_size=batch_size,
            workers=processes,
            out=place / ANSWERS,
            device=team.device,
            begin=lambda: None if makes_masks else stack.enter_context(folder),
        )
        if team.is_main:
            write_audit(place, result, _setup(result, given, first))
        team.wait()
    return result


def _pictures(given: Mapping[str, Any], make_masks: MakeMasks | None, threads: int) -> AuditPictures:
    """The pictures that are audited, with their masks."""
    from relevit.auditing.folder import MASKS
    from relevit.auditing.pictures import builtin_pictures, find_pictures

    drawn = {"limit": given["limit"], "seed": given["seed"]}
    if given["images"] == "builtin":
        return builtin_pictures(**drawn)
    labels = None if given["labels"] == "auto" else given["labels"]
    masks = given["masks"] or Path(given["out"]) / MASKS
    with terminal.progress("checking") as count:
        return find_pictures(
            given["images"], masks, **drawn, labels=labels, make_masks=make_masks, workers=threads, progress=count
        )


def _make_masks(
    net: Any, images: Path, place: Path, workers: int, team: Processes, names: Sequence[str]
) -> dict[str, str]:
    """Makes the masks of pictures of a folder; tells of those that got none why."""
    from relevit.auditing.folder import MASKS
    from relevit.masking.record import LOW
    from relevit.masking.refinement import OBJECT
    from relevit.masking.run.mask_run import make_masks

    with terminal.progress("masks") as advance:
        run = make_masks(
            net,
            images,
            place / MASKS,
            names=names,
            min_pixels=0,
            min_confidence=_DOUBTFUL,
            workers=workers,
            device=team.device,
            start=lambda total: advance(0, total),
            advance=advance,
        )
    reasons = {LOW: "patches and edges tell different things"}
    lost = {row.name: row.fault or reasons.get(row.outcome, row.outcome) for row in run.rows if row.outcome != OBJECT}
    return {name: reason for name, reason in team.of_main(lost).items() if name in names}


def _check_inputs(images: Any, masks: Any, mask_model: Any, place: Path) -> None:
    """Raises UserError for folders that are not there, and for masks that are given twice."""
    if images == "builtin" and (masks is not None or mask_model is not None):
        raise UserError("the built-in benchmark has exact masks: leave out --masks and --mask-model")
    if masks is not None and mask_model is not None:
        raise UserError("--mask-model makes masks where there are none: give it or --masks, not both")
    if images == "builtin":
        return
    for name, folder in (("--images", images), ("--masks", masks)):
        if folder is not None and not Path(folder).is_dir():
            raise UserError(f"{name}: there is no folder {folder}")
    if place.resolve().is_relative_to(Path(images).resolve()):
        raise UserError(f"{place} lies in the folder of images {images}: choose an --out of its own, beside it")


def _setup(result: Audit, given: Mapping[str, Any], first: str) -> dict[str, str]:
    """What the page says of how it was made."""
    from relevit.versions import versions

    pictures = result.pictures
    drawn = f", drawn by seed {given['seed']}" if given["limit"] is not None else ""
    masks = {
        "exact": "exact",
        "given": f"given, {given['masks']}",
        "automatic": f"TokenCut on the features of {given['mask_model'] or first}",
    }
    return {
        "command": command_line(audit, given),
        "pictures": f"{len(pictures):,} of {len(set(pictures.classes)):,} classes{drawn}",
        "masks": masks[pictures.masks],
        "classes": "the folders' names" if pictures.labels == "folders" else f"the answers of {first}",
        "preprocessing": "each model's own" if given["protocol"] == "standard" else "the paper's",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


def show(result: Audit, given: Mapping[str, Any]) -> None:
    """The table, the verdict on each model, and where the report lies."""
    from rich.text import Text

    from relevit.auditing.folder import FIGURES, PAGE

    terminal.show(_table(result))
    for name, figures in result.figures.items():
        outcome = result.outcome(name)
        terminal.show(Text(f"{name}: {outcome}" if len(result.figures) > 1 else outcome, style="bold"))
        terminal.show(*result.sentences[name])
        worst = [f"{group.name} ({group.fall.value:.0f})" for group in figures.classes if group.fall.low > 0][:_SHOWN]
        if worst:
            terminal.show(f"classes that depend most on it (fall in points): {', '.join(worst)}")
    place = Path(given["out"])
    terminal.show(f"report: {place / PAGE}", f"figures: {place / FIGURES}")
    left_out = result.pictures.left_out
    terminal.remark(*(f"left out: {name}: {reason}" for name, reason in left_out[:_SHOWN]))
    if len(left_out) > _SHOWN:
        terminal.remark(f"... and {len(left_out) - _SHOWN} more, see {place / FIGURES}")


def _table(result: Audit) -> Table:
    from relevit.auditing.conditions import CONDITIONS
    from relevit.report.table import Table

    def told(figure: Estimate | None) -> str:
        return "-" if figure is None else f"{figure.value:.1f} ({figure.low:.1f} to {figure.high:.1f})"

    figures = result.figures.values()
    rows: list[tuple[str, ...] | None] = []
    for key, condition in CONDITIONS.items():
        accuracies = [each.accuracy[key] for each in figures]
        rows.append((condition.words, *(told(each.r1_interval if len(each) else None) for each in accuracies)))
    rows += [None, ("relevance on background", *(told(each.share) for each in figures))]
    rows.append(("area of background", *(f"{each.area.value:.1f}" for each in figures)))
    return Table("Accuracy in percent (95% interval)", ("pictures", *result.figures), rows)
