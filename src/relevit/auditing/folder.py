"""The folder of an audit: audit.html, audit.json, images.csv, and the automatic masks, if it made any."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from relevit.auditing.conditions import CONDITIONS, OWN
from relevit.auditing.page import render_audit
from relevit.auditing.result import Audit
from relevit.files import atomic_write
from relevit.folders import OwnedFolder

PAGE, FIGURES, ROWS, MASKS = "audit.html", "audit.json", "images.csv", "masks"
ANSWERS = "answers"  # of every model to every version of every picture
KIND = "relevit audit"


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
    atomic_write(out / ROWS, rows(audit))
    page = render_audit(out / PAGE, audit, setup, notes(audit))
    atomic_write(out / FIGURES, json.dumps(audit.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return page


def rows(audit: Audit) -> str:
    """One row a picture and model, from which every figure can be computed again, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["image", "class", "object", "model", "target", "own_background_of", "other_background_of"]
    writer.writerow([*head, *CONDITIONS, "relevance_on_background", "area_of_background"])
    pictures, donors = audit.pictures, audit.donors
    shown = pictures.names if pictures.images.objects is None else pictures.objects
    for name, seen in audit.observed.items():
        for number, (image, group) in enumerate(zip(pictures.names, pictures.classes, strict=True)):
            behind = [pictures.names[d[number]] if d[number] >= 0 else "" for d in (donors.own, donors.other)]
            said = [seen.predicted[key][number] if seen.possible[key][number] else "" for key in CONDITIONS]
            share = "" if seen.share is None else f"{seen.share[number]:.6f}"
            first = [image, group, shown[number], name, audit.targets[name][number], *behind]
            writer.writerow([*first, *said, share, f"{seen.area[number]:.6f}"])
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
    for name, figures in audit.figures.items():
        fall = figures.falls.get(OWN)
        if fall is not None and fall.low > 0:
            found.append(
                f"{name} loses {fall.value:.1f} points (95% interval {fall.low:.1f} to {fall.high:.1f}) already by pasting the "
                "object on another background of its own class: edges, fillings and the change itself disturb it. The verdict is "
                "about what comes on top of that."
            )
    found.append(
        "Intervals (95%) are of the pictures: how the figures might differ with others like them. They do not tell how another "
        "draw of the backgrounds would do, nor pictures from elsewhere."
    )
    return found
