"""The folder of an audit: audit.html, audit.json, images.csv, and the automatic masks, if it made any."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from relevit.auditing.conditions import CONDITIONS
from relevit.auditing.examples import Examples
from relevit.auditing.page import render_audit
from relevit.auditing.result import Audit
from relevit.files import atomic_write
from relevit.folders import OwnedFolder

PAGE, FIGURES, ROWS, MASKS = "audit.html", "audit.json", "images.csv", "masks"
ANSWERS = "answers"  # of every model to every version of every picture
KIND = "relevit audit"
TITLE = "Does the classifier look at the background?"


def check_place(out: Path) -> None:
    """Refuse, before any long work, a place that holds anything but an unfinished audit."""
    OwnedFolder(out, KIND, {}, result=FIGURES, compare=lambda earlier, now: [])


def own(out: Path, request: Mapping[str, object]) -> OwnedFolder:
    """The folder of an audit; `request`: which images, and where the masks come from. Raises UserError for the folder of another
    audit, and for one that is finished."""
    return OwnedFolder(out, KIND, request, result=FIGURES)


def write_audit(out: Path, audit: Audit, setup: Mapping[str, str]) -> Path:
    """Write the figures, the rows and last the page; returns the page's path."""
    (out / PAGE).unlink(missing_ok=True)  # of this audit, stopped before it was done
    content = audit.to_dict()
    examples = Examples(audit)
    panels = {name: examples.of_classes(name) for name in audit.figures}
    atomic_write(out / ROWS, rows(audit))
    page = render_audit(
        out / PAGE,
        TITLE if len(audit.figures) == 1 else "Do the classifiers look at the background?",
        content,
        {key: (each.words, each.short) for key, each in CONDITIONS.items()},
        examples.strip(),
        panels,
        setup,
        notes(audit),
    )
    atomic_write(out / FIGURES, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return page


def rows(audit: Audit) -> str:
    """One row a picture and model, from which every figure can be computed again, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(CONDITIONS)
    head = ["image", "class", "object", "model", "target", "own_background_of", "other_background_of"]
    writer.writerow([*head, *keys, "relevance_on_background", "area_of_background"])
    pictures, donors = audit.pictures, audit.donors
    for name, seen in audit.observed.items():
        targets = audit.targets[name]
        for number, (image, each) in enumerate(zip(pictures.names, pictures.classes, strict=True)):
            behind = [pictures.names[d] if d >= 0 else "" for d in (int(donors.own[number]), int(donors.other[number]))]
            shown = image if pictures.objects is None else pictures.objects[number]
            said = [int(seen.predicted[key][number]) if seen.possible[key][number] else "" for key in keys]
            share = "" if seen.share is None else f"{seen.share[number]:.6f}"
            writer.writerow(
                [image, each, shown, name, int(targets[number]), *behind, *said, share, f"{seen.area[number]:.6f}"]
            )
    return text.getvalue()


def notes(audit: Audit) -> list[str]:
    """What a reader needs to judge the figures."""
    pictures = audit.pictures
    found = []
    if pictures.labels == "predicted":
        first = next(iter(audit.figures))
        found.append(
            f"The classes of the pictures are not known: the answers of {first} to the pictures as they are stand for them. "
            "Accuracy is then agreement with those answers; whether they are right is not measured."
        )
    if pictures.masks == "automatic":
        found.append(
            "The masks were made without annotation (TokenCut). Where one misses a part of the object, that part stays in the "
            "background, also in the one that other objects are put on, and raises what the background seems to tell: look "
            f"through {MASKS}, and give better ones with --masks where it matters."
        )
    if pictures.left_out:
        reasons = Counter(reason if len(reason) < 60 else reason.split(" (")[0] for _, reason in pictures.left_out)
        listed = [f"{count} ({reason})" for reason, count in reasons.most_common(3)]
        more = f", and {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
        found.append(f"{len(pictures.left_out)} pictures are left out: {', '.join(listed)}{more}.")
    sizes = Counter(pictures.classes)
    alone = sum(count == 1 for count in sizes.values())
    if alone:
        found.append(
            f"{alone} of {len(sizes)} classes have a single picture, which has no background of its own class to be put on; it "
            "lends its background to others."
        )
    fragile = {
        name: each.falls["own_background"]
        for name, each in audit.figures.items()
        if "own_background" in each.falls and each.falls["own_background"].low > 0
    }
    for name, fall in fragile.items():
        found.append(
            f"{name} loses {fall.value:.1f} points (95% interval {fall.low:.1f} to {fall.high:.1f}) already by pasting the object "
            "on another background of its own class: edges, fillings and the change itself disturb it. The verdict is about what "
            "comes on top of that."
        )
    found.append(
        "Intervals (95%) are of the pictures: how the figures might differ with others like them. They do not tell how another "
        "draw of the backgrounds would do, nor pictures from elsewhere."
    )
    return found
