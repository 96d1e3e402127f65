"""`relevit audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from relevit.errors import UserError
from relevit.models.named import load_named, named_models
from relevit.terminal import cores, counting, pick_device, stderr, stdout

if TYPE_CHECKING:
    from relevit.auditing import Audit


def audit(
    models: list[str],
    images: str,
    out: str = "runs/audit",
    masks: str | None = None,
    mask_model: str | None = None,
    labels: Literal["auto", "folders", "predicted"] = "auto",
    class_map: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    protocol: Literal["standard", "paper"] = "standard",
    batch_size: int = 32,
    workers: int | None = None,
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Tell whether a classifier looks at the background, and whether the background misleads it.

    Puts the objects of your own images on each other's backgrounds, removes and blurs the background, and removes the object; measures
    accuracy on each, and how much of the relevance lies on the background. Writes OUT/audit.html with a verdict in plain sentences, the
    classes that depend most on their background, and examples; OUT/audit.json with every figure; OUT/images.csv with a row an image.
    Several models are shown side by side, with their differences from the first.

    Args:
        models: one or several models, each named as for `relevit evaluate`.
        images: a folder of class folders, or of images whose classes are not known; builtin takes the built-in benchmark.
        out: the folder for the report.
        masks: masks of the same relative names, grey PNG, 255 on the object; without them they are made (TokenCut), one after the other, and an audit that was stopped goes on with them.
        mask_model: whose features find the objects where there are no masks, such as vit_base_patch16_224.dino; by default the first model's own.
        labels: where the classes of the images come from, their folders or the first model's answers; auto takes folders where there are any.
        class_map: a JSON or CSV file from folder name to class index, where folders are named neither by wnid nor by class index.
        limit: audits this many images, drawn by the seed as evenly over the classes as can be.
        seed: of the backgrounds that are exchanged, and of all other draws.
        protocol: preprocessing, each model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).
        batch_size: images in one forward pass.
        workers: threads that make pictures; by default one for each core.
        device: where to run, such as cuda; by default the GPU if there is one.
        progress: shows a progress bar.
    """
    place = Path(out)
    if images == "builtin" and (masks is not None or mask_model is not None):
        raise UserError("the built-in benchmark has exact masks: leave out --masks and --mask-model")
    if masks is not None and mask_model is not None:
        raise UserError("--mask-model makes masks where there are none: give it or --masks, not both")
    named = named_models(models)
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be a number of images from 1, not {limit}")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}")
    if images != "builtin":
        for name, folder in (("--images", images), ("--masks", masks)):
            if folder is not None and not Path(folder).is_dir():
                raise UserError(f"{name}: there is no folder {folder}")
        if place.resolve().is_relative_to(Path(images).resolve()):
            raise UserError(f"{out} lies in the folder of images {images}: choose an --out of its own, beside it")

    from dataclasses import replace

    from relevit.auditing import audit_models, find_size
    from relevit.auditing.folder import FIGURES, MASKS, begin, check_place, write_audit
    from relevit.auditing.pictures import builtin_pictures, draw_balanced, find_pictures, without_background
    from relevit.models.fingerprints import of_weights as fingerprint

    check_place(place, None if masks is not None or images == "builtin" else _unknown(place))
    home = pick_device(device)
    threads = cores() if workers is None else workers
    loaded = {label: load_named(model, protocol, home) for label, model in named.items()}
    first = next(iter(named))
    if images == "builtin":
        pictures = builtin_pictures()
        pictures = pictures.subset(draw_balanced(pictures.names, pictures.classes, limit, seed))
    else:
        request = None
        net = loaded[first][0]
        if masks is None:
            net = net if mask_model is None else load_named(mask_model, device=home)[0]
            request = {
                "images": str(Path(images).resolve()),
                "model": mask_model or named[first],
                "weights": fingerprint(net.state_dict()),
            }
            check_place(place, request)
        with counting("masks" if masks is None else "checking", progress) as advance:
            if request is not None:
                begin(place, request)
            pictures = find_pictures(
                images,
                masks,
                limit=limit,
                seed=seed,
                labels=None if labels == "auto" else labels,
                mask_folder=place / MASKS,
                mask_model=lambda: net,
                workers=threads,
                progress=advance,
            )
        pictures = replace(pictures, size=find_size(loaded))
        with counting("reading", progress) as advance:
            pictures = without_background(pictures, advance, threads)
    with counting("auditing", progress) as advance:
        found = audit_models(
            loaded, pictures, class_map=class_map, seed=seed, batch_size=batch_size, workers=threads, progress=advance
        )
    options = [f"--masks {masks}" if masks else "", f"--mask-model {mask_model}" if mask_model else ""]
    options += [f"--labels {labels}" if labels != "auto" else "", f"--class-map {class_map}" if class_map else ""]
    options += [f"--protocol {protocol}" if protocol != "standard" else ""]
    options += [f"--limit {limit}" if limit is not None else "", f"--seed {seed}"]
    setup = {
        "command": " ".join(["relevit audit", *models, "--images", images, *filter(None, options)]),
        "pictures": f"{len(found.pictures):,} of {len(set(found.pictures.classes)):,} classes"
        + (f", drawn by seed {seed}" if limit is not None else ""),
        "masks": {
            "exact": "exact",
            "given": f"given, {masks}",
            "automatic": f"TokenCut on the features of {mask_model or first}",
        }[found.pictures.masks],
        "classes": "the folders' names" if found.pictures.labels == "folders" else f"the answers of {first}",
        "preprocessing": "each model's own" if protocol == "standard" else "the paper's",
        "versions": _versions(),
    }
    page = write_audit(place, found, setup)
    _show(found)
    stdout().print(f"report: {page}\nfigures: {place / FIGURES}", highlight=False, soft_wrap=True)
    for name, reason in found.pictures.left_out[:5]:
        stderr().print(f"left out: {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if len(found.pictures.left_out) > 5:
        stderr().print(f"... and {len(found.pictures.left_out) - 5} more, see {place / FIGURES}", highlight=False)


def _unknown(place: Path) -> dict[str, object]:
    """The request in the folder itself: before the models are loaded, only what is no unfinished audit is refused."""
    import json

    from relevit.auditing.folder import REQUEST

    try:
        return json.loads((place / REQUEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _show(found: Audit) -> None:
    """The verdict and the table on the terminal."""
    from rich.table import Table

    from relevit.auditing.conditions import CONDITIONS

    table = Table(title="Accuracy in percent (95% interval)", title_justify="left")
    table.add_column("pictures", overflow="fold")
    for name in found.figures:
        table.add_column(name, justify="right", overflow="fold")
    for key, condition in CONDITIONS.items():
        cells = []
        for each in found.figures.values():
            accuracy = each.accuracy[key]
            low, high = accuracy.r1_interval.ends
            cells.append(f"{accuracy.r1:.1f} ({low:.1f} to {high:.1f})" if len(accuracy) else "-")
        table.add_row(condition.words, *cells)
    table.add_section()
    shares = [each.share for each in found.figures.values()]
    table.add_row(
        "relevance on background",
        *("-" if s is None else f"{s.value:.1f} ({s.low:.1f} to {s.high:.1f})" for s in shares),
    )
    table.add_row("area of background", *(f"{each.area.value:.1f}" for each in found.figures.values()))
    stdout().print(table)
    for name in found.figures:
        heading = f"{name}: {found.outcome(name)}" if len(found.figures) > 1 else found.outcome(name)
        stdout().print(f"[bold]{heading}[/bold]", highlight=False)
        for sentence in found.sentences[name]:
            stdout().print(sentence, highlight=False, markup=False, soft_wrap=True)
        worst = [f"{each.name} ({each.fall.value:.0f})" for each in found.figures[name].classes if each.fall.low > 0][
            :5
        ]
        if worst:
            stdout().print(
                f"classes that depend most on it (fall in points): {', '.join(worst)}", highlight=False, markup=False
            )


def _versions() -> str:
    import platform

    import timm
    import torch

    return f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
