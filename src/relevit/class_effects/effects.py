"""What one model changes against another, class by class and image by image: figures and a page (appendix K, Figures 1 to 3)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relevit.class_effects.figures import ClassEffects, class_effects
from relevit.class_effects.page import changes_svg, class_table
from relevit.class_effects.panels import EffectPanels
from relevit.evaluation.accuracy.comparison import changed
from relevit.evaluation.accuracy.predictions import Predictions
from relevit.files import atomic_write
from relevit.folders import OwnedFolder
from relevit.report.page import render
from relevit.report.panels import RULES
from relevit.report.words import signed

PAGE, FIGURES = "effects.html", "effects.json"


def write_effects(
    place: Path,
    loaded: Mapping[str, Any],
    name: str,
    benchmark: Any,
    rows: Mapping[str, Predictions],
    *,
    protocol: str,
    classes: int = 5,
    each: int = 6,
    seed: int = 0,
    unreadable: Sequence[tuple[str, str]] = (),
    command: str = "",
    sources: Mapping[str, str] | None = None,
) -> tuple[ClassEffects, dict[str, Any]]:
    """Writes PLACE/effects.json, then PLACE/effects.html; returns the effects, and what the JSON holds.

    loaded: label to (model, transform) of two models, before and after. name, benchmark: where `rows`, label to predictions, come from. classes:
    most helped and most harmed classes with images; each: images of each kind. seed: of the draws. unreadable: (file, reason). command and
    sources (label to the model's name) are told on the page.
    """
    before, after = loaded
    found = class_effects(rows[before], rows[after], seed=seed)
    counts = {kind: int(chosen.sum()) for kind, chosen in changed(rows[before], rows[after]).items()}
    content: dict[str, Any] = {
        "before": before,
        "after": after,
        "benchmark": name,
        "protocol": protocol,
        "seed": seed,
        "summary": _sentences(before, after, found),
        "images": {"all": len(rows[before].keys), **counts},
        "unreadable": [{"file": file, "reason": reason} for file, reason in unreadable],
        "effects": found.to_dict(),
    }
    named = sources or {}
    setup = {
        "command": command,
        "benchmark": f"{name}, {len(rows[before].keys):,} images of {len(found.classes):,} classes",
        "protocol": protocol,
        "models": ", ".join(f"{each} ({named[each]})" if named.get(each, each) != each else each for each in loaded),
    }
    atomic_write(place / FIGURES, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    panels = EffectPanels(loaded, benchmark, rows, seed)
    render(
        "effects.html",
        place / PAGE,
        title="What changed, class by class",
        summary=content["summary"],
        content=content,
        effects=content["effects"],
        class_table=lambda effects: class_table(content, effects).html(),
        kinds=panels.kinds(each),
        classes=panels.classes(found, classes, min(each, 3)),
        rules=RULES,
        setup={key: value for key, value in setup.items() if value},
        notes=_notes(content),
        plot=changes_svg([effect["change"]["points"] for effect in content["effects"]["classes"]], found.chance),
    )
    return found, content


def effects_folder(place: Path) -> OwnedFolder:
    """The folder of a page of effects, which is written last. Raises UserError as `OwnedFolder`."""
    return OwnedFolder(place, "relevit effects", None, result=PAGE)


def _sentences(before: str, after: str, found: ClassEffects) -> list[str]:
    """What the page says first, from the figures alone."""
    change, count = found.change, len(found.classes)
    settled = "" if change.settled else ", which leaves its sign open"
    lines = [
        f"From {before} to {after} accuracy changes by {signed(change.value)} points (95% interval {signed(change.low)} to "
        f"{signed(change.high)}){settled}: {found.count(1)} of {count} classes gain, {found.count(-1)} lose, "
        f"{found.count(0)} stay as they were.",
        f"Settled over all classes are {_number(found.count(1, settled=True), 'gain', 'gains')} and "
        f"{_number(found.count(-1, settled=True), 'loss', 'losses')}.",
    ]
    if count > 1:
        differs = (
            "so the classes do differ"
            if found.spread_p < 0.05
            else "so it is not settled that classes differ in their change"
        )
        lines.append(
            f"The classes' changes spread by {found.spread:.1f} points (standard deviation), where the images alone would give "
            f"{found.by_chance:.1f} if all classes changed alike (p = {found.spread_p:.3f}), {differs}."
        )
    return lines


def _number(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _notes(content: dict[str, Any]) -> list[str]:
    notes = [
        "The classes at both ends were chosen for their ends: on other images their changes will be smaller. Their own intervals do "
        "not tell of that choice; the adjusted p does.",
        "Images that several rows show of one object count once, by their mean.",
    ]
    if content["unreadable"]:
        notes.append(f"{len(content['unreadable'])} images could not be read and do not count.")
    return notes
