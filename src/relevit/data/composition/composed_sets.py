"""The folder of composed sets: SET/images/CLASS/NAME.png, SET/masks/CLASS/NAME.png, compose.json and manifest.csv.

compose.json is written first and makes the folder ours; pictures follow one by one, each whole or absent, a mask before
its picture; manifest.csv comes last. The same call goes on where a killed one stopped.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from relevit.data.checks import Progress, in_parallel
from relevit.data.composition.shift_tests import (
    SI_SCORE,
    Composition,
    Settings,
    Sources,
    chosen_sets,
    plan_set,
    render,
    scale_of_object,
)
from relevit.data.folder import class_folder_samples
from relevit.data.image_map import Steps, map_images, threads
from relevit.data.listing import is_visible, list_images
from relevit.data.reading import read_json, read_rows, write_rows
from relevit.data.sets import ImageSet
from relevit.errors import Fault, FaultsError, UserError, reason_of
from relevit.files import atomic_write
from relevit.folders import OwnedFolder
from relevit.images import read_image
from relevit.processes import Processes

CONFIG, MANIFEST = "compose.json", "manifest.csv"
_NUMBERS = ("x", "y", "area", "scale", "angle")


class Prepared(NamedTuple):
    """What is to be composed: all compositions in order, their sources, the configuration for compose.json, the number
    of compositions of each set, the faults of what was left out (`skip_bad`), and remarks for the user."""

    compositions: list[Composition]
    sources: Sources
    config: dict[str, Any]
    counts: dict[str, int]
    faults: list[Fault]
    remarks: list[str]


def prepare(
    images: str | os.PathLike[str],
    backgrounds: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    *,
    sets: Sequence[str] = ("all",),
    skip_bad: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> Prepared:
    """Reads and checks every object and background, and plans the sets; nothing is written.

    images: class folders of pictures, with `masks` of the same names (see `masked_folder`); without masks, cut-outs
    with alpha. backgrounds: a folder of scenes, for location, size and rotation. See `shift_tests` for the sets.
    settings: see `Settings`.

    Raises FaultsError with all faults (with `skip_bad`, if nothing is left), and UserError for arguments out of range and
    for sets that cannot be made of what there is.
    """
    chosen = Settings(**settings)
    names = chosen_sets(sets, masks is None, backgrounds is not None)
    scenes, faults = _scenes(backgrounds if set(names) & set(SI_SCORE) else None, workers, progress)
    root = Path(images)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: give a folder that holds one folder of images per class")
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and is_visible(entry.name))
    numbers = {folder: number for number, folder in enumerate(folders)}
    try:
        samples, bad = class_folder_samples(
            root, masks, classes=numbers, skip_bad=skip_bad, workers=workers, progress=progress
        )
    except FaultsError as error:
        raise FaultsError([*error.faults, *faults]) from None
    if faults and (not skip_bad or not scenes):
        raise FaultsError(faults)
    scenery = None if backgrounds is None else Path(backgrounds)
    sources = Sources(samples, scenery, chosen.size, None if masks is None else Path(masks))
    plans, remarks = _plans(names, sources, scenes, chosen, "all" in sets)
    config = {
        "sets": list(plans),
        **vars(chosen),
        "cut_outs": masks is None,
        **_fingerprints(sources, scenes, workers, progress),
        "about": {
            "images": str(images),
            "masks": masks and str(masks),
            "backgrounds": backgrounds and str(backgrounds),
        },
    }
    compositions = [row for plan in plans.values() for row in plan]
    counts = {name: len(plan) for name, plan in plans.items()}
    return Prepared(compositions, sources, config, counts, [*bad, *faults], remarks)


def _plans(
    names: Sequence[str], sources: Sources, scenes: Sequence[str], settings: Settings, all_possible: bool
) -> tuple[dict[str, list[Composition]], list[str]]:
    """The compositions of each set, and what is to be said of them. all_possible: sets of nothing are left out."""
    scale_of = scale_of_object(sources)
    plans = {name: plan_set(name, sources, scenes, settings, scale_of) for name in names}
    _check_names([row for plan in plans.values() for row in plan])
    remarks = _remarks(plans, sources.samples)
    for name in [name for name, plan in plans.items() if not plan]:
        if not all_possible:
            raise UserError(f"no {name} can be made: {_NEEDS[name]}; add pictures, or leave it out of --sets")
        remarks = [f"no {name} can be made: {_NEEDS[name]}", *remarks]
        del plans[name]
    return plans, remarks


_NEEDS = {
    "mixed_same": "it needs two pictures of a class",
    "mixed_rand": "it needs two pictures",
    "mixed_next": "it needs two classes",
}


def _scenes(
    folder: str | os.PathLike[str] | None, workers: int, progress: Progress | None
) -> tuple[list[str], list[Fault]]:
    """The readable pictures of a folder of backgrounds, and the faults of the others."""
    if folder is None:
        return [], []
    files = list_images(folder)
    if not files:
        return [], [Fault("no images", str(folder), "expected pictures of scenes")]

    def check(path: Path) -> Fault | None:
        try:
            read_image(path)
        except UserError as error:
            return Fault("unreadable image", str(path), reason_of(error))
        return None

    faults = in_parallel(check, files, workers, progress)
    readable = [path for path, fault in zip(files, faults, strict=True) if fault is None]
    return [path.relative_to(folder).as_posix() for path in readable], [fault for fault in faults if fault is not None]


def _fingerprints(
    sources: Sources, scenes: Sequence[str], workers: int, progress: Progress | None
) -> dict[str, dict[str, Any] | None]:
    """Of images, masks and backgrounds: how many files, and a hash of their names and contents; None where there are none."""
    names, read = sources.samples.names, sources.samples.files
    files = [read(index) for index in range(len(names))] if read is not None else []
    kinds: dict[str, list[tuple[str, Path]]] = {
        "images": [(name, image) for name, (image, _, _) in zip(names, files, strict=True)],
        "masks": [(name, mask) for name, (_, mask, _) in zip(names, files, strict=True) if mask is not None],
        "backgrounds": [(name, (sources.root or Path()) / name) for name in scenes],
    }

    def content(path: Path) -> bytes:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()

    every = [path for pairs in kinds.values() for _, path in pairs]
    digests = dict(zip(every, in_parallel(content, every, workers, progress), strict=True))
    found: dict[str, dict[str, Any] | None] = {}
    for kind, pairs in kinds.items():
        whole = hashlib.blake2b(digest_size=8)
        for name, path in pairs:
            whole.update(f"{name}\0".encode() + digests[path])
        found[kind] = {"count": len(pairs), "fingerprint": whole.hexdigest()} if pairs else None
    return found


def _check_names(compositions: Sequence[Composition]) -> None:
    """Two objects must not be written to one file, whatever the case of its letters."""
    seen: dict[tuple[str, str], str] = {}
    for one in compositions:
        other = seen.setdefault((one.set, one.file.casefold()), one.object)
        if other != one.object:
            raise UserError(f"{other} and {one.object} would give pictures of the same name: rename one of them")


def _remarks(plans: Mapping[str, Sequence[Composition]], samples: ImageSet) -> list[str]:
    """What a set leaves out."""
    counts = Counter(samples.groups)
    alone = sorted(name for name, count in counts.items() if count == 1)
    if not plans.get("mixed_same") or not alone:
        return []
    shown = ", ".join(alone[:5]) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
    return [f"mixed_same leaves out classes of a single picture: {shown}"]


def check_place(out: Path, config: Mapping[str, Any] | None = None) -> OwnedFolder:
    """The folder for composed sets of this configuration (None: of any). Raises UserError as `OwnedFolder`."""
    return OwnedFolder(out, "relevit compose", config, record=CONFIG)


def check_apart(out: Path, **folders: str | os.PathLike[str] | None) -> None:
    """Raise UserError where `out` lies in a folder that is read (`folders`, by what they hold), or is one of them: what
    is composed would be read as an input by the next call."""
    for kind, folder in folders.items():
        if folder is not None and out.resolve().is_relative_to(Path(folder).resolve()):
            raise UserError(f"{out} lies in the folder of {kind} {folder}: choose an --out of its own, beside it")


def read_config(out: Path) -> dict[str, Any]:
    """compose.json of a folder. Raises UserError where it cannot be read."""
    return read_json(out / CONFIG, "what the sets are composed of: compose the sets anew in another folder")


def picture_paths(out: Path, composition: Composition) -> tuple[Path, Path]:
    """The files of a composition's picture and mask."""
    mask = composition.file[: len(composition.file) - len(Path(composition.file).suffix)] + ".png"
    return out / composition.set / "images" / composition.file, out / composition.set / "masks" / mask


def missing(out: Path, compositions: Sequence[Composition]) -> list[Composition]:
    """Those whose picture or mask is not there yet."""
    return [one for one in compositions if not all(path.exists() for path in picture_paths(out, one))]


def write_compositions(
    out: Path, prepared: Prepared, *, workers: int = 0, advance: Callable[[int], object] = lambda count: None
) -> int:
    """Make what is missing below `out`, in `workers` threads, then the manifest; the number of pictures made.

    The configuration is written to compose.json first; an `out` of another one is refused (`check_place`), and one in a
    folder of the sources (`check_apart`). `advance` is called with the number of pictures that are done since its last
    call. Several processes (torchrun) share the work.
    """
    compositions, sources = prepared.compositions, prepared.sources
    folder = check_place(out, prepared.config)
    check_apart(out, images=sources.samples.name, masks=sources.masks, backgrounds=sources.root)
    processes = Processes("cpu")

    def make(composition: Composition, _: None) -> None:
        picture, mask = render(composition, sources)
        to_picture, to_mask = picture_paths(out, composition)
        atomic_write(to_mask, _encoded(np.round(mask * 255).astype(np.uint8), ".png"))
        atomic_write(to_picture, _encoded(picture, to_picture.suffix))

    steps = Steps[Composition](is_done=lambda composition: not missing(out, [composition]), write=make)
    processes.wait()  # all have looked at the folder as it was
    with folder:
        processes.wait()  # the first one holds it
        with threads(workers) as pool:
            made = map_images([[one] for one in compositions], steps, pool, processes, advance=advance)
        if processes.is_main:
            write_rows(out / MANIFEST, Composition._fields, compositions)
        processes.wait()
    return made


def read_manifest(path: Path) -> list[Composition]:
    """The rows of a manifest. Raises UserError for a file that is none."""
    rows = read_rows(path, "a manifest of compositions (run relevit compose again)", Composition._fields)
    try:
        return [_composition(row) for row in rows]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no manifest of compositions ({error}): run relevit compose again") from error


def _composition(row: Mapping[str, str]) -> Composition:
    values: dict[str, Any] = dict(row)
    values |= {key: float(row[key]) if row[key] else None for key in _NUMBERS}
    return Composition(**values | {"repeat": int(row["repeat"])})


def _encoded(values: np.ndarray, suffix: str) -> bytes:
    stream = io.BytesIO()
    if suffix == ".png":
        Image.fromarray(values).save(stream, "PNG")
    else:
        Image.fromarray(values).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()
