"""`relevit effects`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from relevit import terminal
from relevit.api import types
from relevit.api.types import command_line, public
from relevit.errors import UserError

if TYPE_CHECKING:
    from relevit.class_effects.figures import ClassEffects


class Effects(NamedTuple):
    """What changed class by class, and what the figures' file says; before and after: the models' labels."""

    classes: ClassEffects
    content: dict[str, Any]
    before: str
    after: str


@public
def effects(
    models: types.Models,
    *,
    data: types.DataSet,
    out: types.Folder = "runs/effects",
    benchmark: types.Name | None = None,
    results: types.Folder | None = None,
    protocol: types.Protocol = "standard",
    class_map: types.ClassMap | None = None,
    classes: types.Index = 5,
    each: types.Index = 6,
    seed: types.Index = 0,
    batch_size: types.Count = 64,
    workers: types.Index = 0,
    device: types.Device = None,
    progress: bool = True,
) -> Effects:
    """Show what one model changes against another, class by class and image by image.

    Writes OUT/effects.html: how the changes of the classes' accuracies are distributed, beside what chance alone would give; the most
    helped and the most harmed classes; and corrected, unchanged and ruined images with the maps of both models. OUT/effects.json has
    every figure.

    Args:
        models: two models, before and after, each named as for `relevit evaluate`.
        data: a benchmark, or a folder of several, as for `relevit evaluate`, such as builtin/background_shuffled. In Python also a data set.
        out: the folder for the page.
        benchmark: which one, where there are several in --data.
        results: the folder of a `relevit evaluate --out`; answers that are there are not made again, others are added to it.
        protocol: standard, each model's own preprocessing; or paper, as for the published figures.
        classes: most helped and most harmed classes with images.
        each: images of each kind.

    Returns:
        The classes that changed, and all figures.
    """
    given = dict(locals())
    from relevit.class_effects.effects import effects_folder, write_effects
    from relevit.data.open import one_of
    from relevit.evaluation.run import evaluate
    from relevit.models.loading import labelled, load_several
    from relevit.processes import pick_device

    place = Path(out)
    named = labelled(models)
    if len(named) != 2:
        raise UserError(f"effects compares two models, before and after, not {len(named)}: name two")
    folder = effects_folder(place)
    name, opened = one_of(data, benchmark, protocol=protocol)
    loaded = load_several(models, protocol, pick_device(device))
    with folder:
        report = evaluate(
            dict(loaded),
            {name: opened},
            class_map=class_map,
            protocol=protocol,
            out=results,
            batch_size=batch_size,
            workers=workers,
        )
        found, content = write_effects(
            place,
            loaded,
            name,
            opened,
            {label: report.predictions[name][label] for label in loaded},
            protocol=protocol,
            classes=classes,
            each=each,
            seed=seed,
            unreadable=report.unreadable[name],
            command=command_line(effects, given),
            sources={label: str(model) for label, model in named.items()},
        )
    return Effects(found, content, *loaded)


def show(result: Effects, given: Mapping[str, Any]) -> None:
    """The classes that changed most, the summary, and where the page lies."""
    from relevit.class_effects.effects import FIGURES, PAGE
    from relevit.report.table import Table
    from relevit.report.words import signed

    rows: list[tuple[str, ...] | None] = []
    for part in (result.classes.most_helped(5), list(reversed(result.classes.most_harmed(5)))):
        for row in part:
            rates = (f"{row.before:.1f}", f"{row.after:.1f}", signed(row.change.value), f"{row.adjusted:.3f}")
            rows.append((row.name, str(row.images), *rates))
        rows.append(None)
    if any(rows):
        columns = ("class", "images", result.before, result.after, "change", "adjusted p")
        terminal.show(Table("Classes that changed most", columns, rows))
    terminal.show(*result.content["summary"])
    place = Path(given["out"])
    terminal.show(f"page: {place / PAGE}", f"figures: {place / FIGURES}")
    if result.content["unreadable"]:
        count = len(result.content["unreadable"])
        terminal.remark(f"{count} images could not be read and do not count, see {place / FIGURES}")
