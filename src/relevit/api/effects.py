"""`relevit effects`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from relevit.errors import UserError
from relevit.models.named import load_named, named_models
from relevit.terminal import pick_device, stderr, stdout

if TYPE_CHECKING:
    from relevit.class_effects.figures import ClassEffects


def effects(
    models: list[str],
    data: str,
    out: str = "runs/effects",
    benchmark: str | None = None,
    results: str | None = None,
    protocol: Literal["standard", "paper"] = "standard",
    class_map: str | None = None,
    classes: int = 5,
    each: int = 6,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Show what one model changes against another, class by class and image by image.

    Writes OUT/effects.html: how the changes of the classes' accuracies are distributed, beside what chance alone would give; the most
    helped and the most harmed classes; and corrected, unchanged and ruined images with the maps of both models. OUT/effects.json has
    every figure.

    Args:
        models: two models, before and after, each named as for `relevit evaluate`.
        data: a benchmark, or a folder of several, as for `relevit evaluate`, such as builtin/background_shuffled.
        out: the folder for the page.
        benchmark: which one, where there are several in --data.
        results: the folder of a `relevit evaluate --out`; answers that are there are not made again, others are added to it.
        protocol: standard, each model's own preprocessing; or paper, as for the published figures.
        class_map: a JSON or CSV file from folder name to class index, where folders are named neither by wnid nor by class index.
        classes: most helped and most harmed classes with images.
        each: images of each kind.
        seed: of the draws.
        batch_size: images in one forward pass.
        workers: processes that read images; 0 reads in this one.
        device: where to run, such as cuda; by default the GPU if there is one.
        progress: shows a progress bar.
    """
    place = Path(out)
    named = named_models(models)
    if len(named) != 2:
        raise UserError(f"effects compares two models, before and after, not {len(named)}: name two")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{out} is there already: choose another --out, nothing is overwritten")
    for name, value in (("classes", classes), ("each", each)):
        if value < 0:
            raise UserError(f"{name} must be at least 0, not {value}")

    from relevit.class_effects.effects import FIGURES, PAGE, write_effects
    from relevit.data.sets import StreamSet
    from relevit.evaluation import evaluate

    name, opened = _one_set(data, benchmark, protocol)
    if isinstance(opened, StreamSet):
        raise UserError(
            f"{data} is read as a stream, in which single images cannot be looked up: give a folder or tar files"
        )
    home = pick_device(device)
    loaded = {label: load_named(model, protocol, home) for label, model in named.items()}
    report = evaluate(
        dict(loaded),
        {name: opened},
        class_map=class_map,
        protocol=protocol,
        out=results,
        batch_size=batch_size,
        workers=workers,
        progress=progress and sys.stderr.isatty(),
    )
    rows = {label: report.predictions[name][label] for label in loaded}
    before, after = loaded
    found, content = write_effects(
        place,
        loaded,
        name,
        opened,
        rows,
        protocol=protocol,
        classes=classes,
        each=each,
        seed=seed,
        unreadable=report.unreadable[name],
        command=f"relevit effects {' '.join(models)} --data {data}"
        + (f" --benchmark {benchmark}" if benchmark else "")
        + f" --seed {seed}",
        sources=named,
    )
    summary = content["summary"]
    _show(found, before, after, summary)
    stdout().print(f"page: {place / PAGE}\nfigures: {place / FIGURES}", highlight=False, soft_wrap=True)
    if content["unreadable"]:
        count = len(content["unreadable"])
        stderr().print(f"{count} images could not be read and do not count, see {place / FIGURES}", highlight=False)


def _show(found: ClassEffects, before: str, after: str, summary: Sequence[str]) -> None:
    from rich.table import Table

    table = Table(title="Classes that changed most", title_justify="left")
    for column in ("class", "images", before, after, "change", "adjusted p"):
        table.add_column(column, overflow="fold", justify="left" if column == "class" else "right")
    for part in (found.most_helped(5), list(reversed(found.most_harmed(5)))):
        for one in part:
            rates = (f"{one.before:.1f}", f"{one.after:.1f}", _signed(one.change.value), f"{one.adjusted:.3f}")
            table.add_row(one.name, str(one.images), *rates)
        table.add_section()
    if table.row_count:
        stdout().print(table)
    for line in summary:
        stdout().print(line, highlight=False, markup=False, soft_wrap=True)


def _signed(points: float) -> str:
    text = f"{abs(points):.1f}"
    return text if text == "0.0" else ("+" if points > 0 else "\u2212") + text


def _one_set(data: str, wanted: str | None, protocol: str) -> tuple[str, Any]:
    """The benchmark's name, as `relevit evaluate` calls it, and the benchmark opened; its last part alone will do as well."""
    from relevit.evaluation.sources import resolve

    found = resolve(data, protocol).openers
    if wanted is not None:
        chosen = [wanted] if wanted in found else [name for name in found if name.endswith(f"/{wanted}")]
        if len(chosen) != 1:
            raise UserError(f"there is no benchmark {wanted} in {data}; there are: {', '.join(found)}")
        return chosen[0], found[chosen[0]]()
    if len(found) > 1:
        raise UserError(f"{data} holds several benchmarks, name one with --benchmark: {', '.join(found)}")
    name = next(iter(found))
    return name, found[name]()
