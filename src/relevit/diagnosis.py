"""Checking a data set and a model before a run: faults that would stop it, warnings that deserve a look, notes.

`examine_data` reads every image and mask once, `examine_model` looks at a model that is built; both yield plain data
that `relevit doctor` prints. Nothing here stops at the first fault.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from relevit.data.checks import Progress, in_parallel
from relevit.data.classes import RULES, ClassMap, match_classes
from relevit.data.folder import class_folder_samples
from relevit.data.inspection import Inspected, MaskFigures, inspect_pair
from relevit.data.listing import image_names, is_visible, list_images
from relevit.data.manifest import TRAINING, Row, faults_of_labels, faults_of_rows, read_manifest
from relevit.data.pairing import pair, plain
from relevit.data.sets import Files
from relevit.errors import REMEDIES, Fault, FaultsError, UserError
from relevit.models.attention import token_layout, unsupported_reason
from relevit.models.families import class_count
from relevit.models.loading import data_config
from relevit.models.untrained import SUSPICIONS, ask_head

FEW_PIXELS = 520  # the protocol's rule for automatic masks, at native size
MOST, LEAST = 0.95, 0.005  # of the picture
FEW_SAMPLES = 3  # of a class; the paper trains with this many
SMALL = 0.5  # of the model's input, along either side
Level = Literal["fault", "warning", "note"]
Weights = Literal["timm", "checkpoint", "file"]
LEVELS: tuple[Level, ...] = ("fault", "warning", "note")


class Where(NamedTuple):
    """A file or folder, and the details (may be empty)."""

    file: str
    detail: str = ""


class Finding(NamedTuple):
    """One kind of thing that was found. "fault": it would stop a run; "warning": it deserves a look; "note": it is
    handled. remedy: what to do."""

    level: Level
    kind: str
    where: list[Where]
    remedy: str


@dataclass
class Diagnosis:
    """All that was found: facts for people in the order of reading, and findings, faults first."""

    facts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    labelled: list[tuple[Path, int]] = field(default_factory=list)  # the images that can be read, with their class

    @property
    def stops(self) -> bool:
        """Whether anything would stop a run."""
        return any(finding.level == "fault" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        findings = [
            {
                "level": finding.level,
                "kind": finding.kind,
                "count": len(finding.where),
                "remedy": finding.remedy,
                "where": [where._asdict() for where in finding.where],
            }
            for finding in self.findings
        ]
        return {"stops": self.stops, "facts": self.facts, "findings": findings}


class _Look(NamedTuple):
    """A sample: its row (of label -1 where its class is unknown), its files, and what they look like."""

    row: Row
    image: Path
    mask: Path | None
    found: Inspected


def examine_data(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None = None,
    *,
    model: nn.Module | None = None,
    class_map: ClassMap | None = None,
    ignore: str | os.PathLike[str] | None = None,
    manifest: str | os.PathLike[str] | None = None,
    protocol: str = "standard",
    workers: int = 0,
    progress: Progress | None = None,
) -> Diagnosis:
    """Every fault of a folder of class folders that `class_folder_samples` would find, and what deserves a look beside.

    masks: None takes the alpha channel of the images. model: for its classes and its input size. ignore: the folder of
    pixels to ignore. manifest: a CSV that names the images; no others are read, and its lines are checked. Images of unknown class are read, too.
    Raises UserError for folders, a class map or a manifest that do not exist.
    """
    root = Path(images)
    listed = [] if manifest is None else read_manifest(manifest)
    names = None if manifest is None else list({plain(row.name): row.name for row in listed}.values())
    folders = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    rows, files, faults = _paired(root, masks, ignore, names, folders)
    used = {row.class_name for row in rows}
    if names is not None and class_map == "sorted":  # which counts the folders of other images, too
        used |= {folder for folder in folders if is_visible(folder)}
    matched = match_classes(used, model, class_map)
    rows = [row._replace(label=matched.classes.get(row.class_name, -1)) for row in rows]
    faults += [Fault("unknown class", str(root / folder), reason) for folder, reason in matched.unknown.items()]
    if manifest is not None:
        known = {plain(row.name): row.label for row in rows if row.label >= 0}
        told = [*faults_of_rows(listed), *faults_of_labels(listed, known)]
        faults += [Fault("bad manifest", str(manifest), detail) for detail in told]
    looked = in_parallel(lambda paths: inspect_pair(*paths), files, workers, progress)
    faults += [found.fault for found in looked if found.fault is not None]
    looks = [_Look(row, file.image, file.mask, found) for row, file, found in zip(rows, files, looked, strict=True)]
    good = [look for look in looks if look.found.fault is None and look.row.label >= 0]
    facts = {
        "images": f"{len(rows)} with a mask, {len(good)} of them good",
        "classes": _class_facts(matched.classes, model, class_map),
    }
    grouped: dict[str, list[Where]] = defaultdict(list)
    for fault in faults:
        grouped[fault.kind].append(Where(fault.file, fault.detail))
    findings = [Finding("fault", kind, where, REMEDIES[kind]) for kind, where in grouped.items()]
    findings += _of_masks(looks, root)
    if masks is not None and looks and not Path(masks).samefile(root):
        findings += _without_images(root, Path(masks))
    findings += _of_images(looks, None if model is None else data_config(model, protocol)["input_size"][1:])
    part = None if manifest is None else {plain(row.name) for row in listed if row.split == TRAINING}
    findings += _of_classes(looks, matched.classes, part)
    labelled = [(look.image, look.row.label) for look in looks if look.found.image is not None and look.row.label >= 0]
    return Diagnosis(facts, sorted(findings, key=lambda finding: LEVELS.index(finding.level)), labelled)


def _paired(
    root: Path,
    masks: str | os.PathLike[str] | None,
    ignore: str | os.PathLike[str] | None,
    names: Sequence[str] | None,
    folders: Sequence[str],
) -> tuple[list[Row], list[Files], list[Fault]]:
    """The images that have a mask, their files, and the faults that names alone tell, whatever the classes of `folders`."""
    try:
        samples, faults = class_folder_samples(
            root, masks, classes=dict.fromkeys(folders, 0), ignore=ignore, names=names, skip_bad=True, check=False
        )
    except FaultsError as error:
        return [], [], list(error.faults)
    rows = [Row(name, group, -1) for name, group in zip(samples.names, samples.groups or (), strict=True)]
    return rows, [samples.files(number) for number in range(len(samples)) if samples.files is not None], faults


def examine_model(
    model: nn.Module, *, protocol: str = "standard", weights: Weights = "timm", name: str = ""
) -> Diagnosis:
    """Whether relevance maps can be had of a model, and its preprocessing as configured against that of its training.

    weights: where those of the run come from: "timm" (its pretrained ones; nothing is downloaded here), "checkpoint" (a
    run or another with a config of its own), "file" (a file given for a timm name).
    """
    from relevit.models.model_facts import model_facts  # it draws in the class lists of ImageNet

    name = name or type(model).__name__
    diagnosis = Diagnosis(dict(model_facts(model, protocol=protocol)))
    trained, configured = data_config(model), data_config(model, protocol)

    def add(level: Level, kind: str, detail: str, remedy: str) -> None:
        diagnosis.findings.append(Finding(level, kind, [Where(name, detail)], remedy))

    reason = unsupported_reason(model)
    if reason is not None:
        add("fault", "unsupported model", reason, "choose a model that is supported")
    else:
        try:
            token_layout(model, *configured["input_size"][1:])
        except UserError as error:
            add("fault", "input size", str(error), "build the model for another size of images")
    cfg = getattr(model, "pretrained_cfg", None) or {}
    if weights == "timm" and not any(cfg.get(key) for key in ("url", "hf_hub_id", "file", "state_dict")):
        remedy = "give --checkpoint FILE, or the name with a tag"
        add("fault", "no pretrained weights", "timm has none for this name", remedy)
    if not _equal(trained, configured, "mean") or not _equal(trained, configured, "std"):
        detail = f"trained with {_normalisation(trained)}; configured: {_normalisation(configured)}"
        remedy = "leave out --protocol paper, unless the published figures are what you compare with"
        add("warning", "normalisation differs", detail, remedy)
    if any(trained[key] != configured[key] for key in ("interpolation", "crop_pct", "crop_mode")):
        detail = f"the model's own: {_crop(trained)}; configured: {_crop(configured)}"
        add("note", "resize and crop differ", detail, "none needed: --protocol paper asks for it")
    known, count = cfg.get("num_classes"), class_count(model)
    if weights != "file" and known and count and known != count:  # a file's own number is not known here
        detail = f"the weights have {known} classes, the model {count}"
        add("warning", "the head is new and untrained", detail, "train it first: maps of an untrained head say nothing")
    return diagnosis


def examine_head(
    model: nn.Module, view: Any, data: Diagnosis, *, name: str = "", progress: Progress | None = None
) -> Diagnosis:
    """How a model answers to the images of `data` in its view, and a warning where its head looks untrained (`judge_head`)."""
    figures = ask_head(model, view, data.labelled, progress=progress)
    if figures is None:
        return Diagnosis()
    where, suspicion = Where(name or type(model).__name__, str(figures)), SUSPICIONS.get(figures.verdict)
    findings = [Finding("warning", suspicion[0], [where], suspicion[1])] if suspicion else []
    return Diagnosis({"answers": str(figures)}, findings)


def _inverted(mask: MaskFigures) -> bool:
    return mask.border > 0.5 and mask.centre < 0.5


class _Doubt(NamedTuple):
    """Something odd about a mask: what it is called, the remedy, when it holds, and what is said of the mask."""

    kind: str
    remedy: str
    holds: Callable[[MaskFigures], bool]
    says: Callable[[MaskFigures], str]


_DOUBTS = (
    _Doubt(
        "mask looks inverted",
        "255 marks the object, 0 the background: invert them if it is the other way round",
        _inverted,
        lambda mask: f"it covers {mask.border:.0%} of the border",
    ),
    _Doubt(
        "mask covers nearly the whole image",
        "mark the object alone, or leave the image out: nothing is left for the background",
        lambda mask: mask.share > MOST,
        lambda mask: f"{mask.share:.1%}",
    ),
    _Doubt(
        "mask covers hardly anything",
        "see whether it marks the whole object",
        lambda mask: mask.share < LEAST,
        lambda mask: f"{mask.share:.2%}",
    ),
    _Doubt(
        f"mask of fewer than {FEW_PIXELS} pixels",
        "see whether it marks the whole object; the paper leaves out automatic masks as small as this",
        lambda mask: mask.pixels < FEW_PIXELS,
        lambda mask: f"{mask.pixels} pixels",
    ),
    _Doubt(
        "mask with many values between",
        "see whether it is a map of probabilities: fractions count in the losses, so set them to 0 and 255",
        lambda mask: mask.soft > 0.5,
        lambda mask: f"{mask.soft:.0%} of what it marks",
    ),
    _Doubt(
        "mask may hold numbers of classes",
        "write the object as 255: of 0 to 255, small numbers count as background",
        lambda mask: mask.ids > 0.5,
        lambda mask: f"{mask.ids:.0%} of its values above 0 are 25 or less",
    ),
)


def _of_masks(looks: Sequence[_Look], root: Path) -> Iterator[Finding]:
    """What the masks look like; those with a fault of their own are left out."""
    good = [
        (str(look.mask or look.image), look.found.mask)
        for look in looks
        if look.found.mask is not None and look.found.fault is None
    ]
    most = 2 * sum(_inverted(mask) for _, mask in good) > len(good) > 1
    for doubt in _DOUBTS:
        where = [Where(file, doubt.says(mask)) for file, mask in good if doubt.holds(mask)]
        kind = "most masks look inverted" if doubt.holds is _inverted and most else doubt.kind
        if where:
            yield Finding("warning", kind, where, doubt.remedy)
    if len(good) > 1 and len({mask.digest for _, mask in good}) == 1:
        detail = f"all {len(good)} have the same pixels"
        yield Finding("warning", "all masks are the same", [Where(str(root), detail)], "see how they were written")


def _without_images(root: Path, masks: Path) -> Iterator[Finding]:
    """Files in the folder of masks that belong to no image, or that are no PNG."""
    files = list_images(masks)
    images_of = pair(image_names(root), [path for path in files if path.suffix.lower() == ".png"], masks).images_of
    where = [Where(str(path)) for path in files if not images_of.get(path)]
    if where:
        remedy = "give them the names of their images, and the ending .png; or remove them"
        yield Finding("warning", "mask without an image", where, remedy)


def _of_images(looks: Sequence[_Look], size: tuple[int, int] | None) -> Iterator[Finding]:
    """What the readable images look like; size: (height, width) of the model's input."""
    traits: dict[str, list[Where]] = defaultdict(list)
    same: dict[bytes, list[_Look]] = defaultdict(list)
    small = []
    for look in looks:
        image = look.found.image
        if image is None:
            continue
        same[image.digest].append(look)
        for trait in image.traits:
            traits[trait].append(Where(str(look.image)))
        width, height = image.size
        if size is not None and (height < SMALL * size[0] or width < SMALL * size[1]):
            small.append(Where(str(look.image), f"{width} x {height}, the model's input {size[1]} x {size[0]}"))
    if small:
        yield Finding("warning", "image much smaller than the input", small, "use larger pictures, or a smaller input")
    several: dict[bool, list[Where]] = {True: [], False: []}
    for group in same.values():
        if len(group) > 1:
            others = ", ".join(str(look.image) for look in group[1:])
            several[len({look.row.class_name for look in group}) > 1].append(
                Where(str(group[0].image), f"the same as {others}")
            )
    if several[True]:
        remedy = "keep it in the class that it belongs to"
        yield Finding("warning", "same picture in several classes", several[True], remedy)
    if several[False]:
        yield Finding("warning", "same picture twice in a class", several[False], "keep one of them")
    handled = {
        "grey": "three equal channels are made of it",
        "16 bits": "8 bits are made of them",
        "CMYK": "it is converted to RGB",
        "palette": "it is converted to RGB",
        "alpha channel": "of the picture it is dropped without blending",
        "animated": "the first frame is used",
        "turned by EXIF": "the picture is turned upright: so must its mask be stored",
    }
    for trait, how in handled.items():
        if traits[trait]:
            yield Finding("note", f"image: {trait}", traits[trait], how)


def _of_classes(looks: Sequence[_Look], classes: dict[str, int], training: Set[str] | None) -> Iterator[Finding]:
    """training: the names of the samples for training, which alone are counted, where a manifest tells; else all are. A
    class that is for validation only needs none."""
    counted = [look for look in looks if training is None or plain(look.row.name) in training]
    counts = Counter(look.row.label for look in counted if look.found.fault is None)
    trained = set(classes.values()) if training is None else {look.row.label for look in counted}
    use = "" if training is None else f" for {TRAINING}"
    folders: dict[int, list[str]] = defaultdict(list)
    for folder, index in classes.items():
        folders[index].append(folder)
    few = [
        Where(", ".join(names), f"{counts[index]} good sample{'s' * (counts[index] != 1)}{use}")
        for index, names in sorted(folders.items())
        if index in trained and counts[index] < FEW_SAMPLES
    ]
    if few:
        kind = f"class with fewer than {FEW_SAMPLES} good samples"
        yield Finding("warning", kind, few, "add some, or see whether this is meant")
    shared = [Where(", ".join(names), f"class {index}") for index, names in folders.items() if len(names) > 1]
    if shared:
        yield Finding("note", "several folders of one class", shared, "none needed, if this is meant")


def _class_facts(classes: dict[str, int], model: nn.Module | None, class_map: ClassMap | None) -> str:
    """How many folders have a class, by which rule, and how many classes have no folder."""
    if class_map is None or (isinstance(class_map, str) and class_map in RULES):
        rules = [class_map] if class_map else ["names", "wnid", "index"]
        by = {"names": "name", "wnid": "wnid", "index": "index", "sorted": "sorted order"}
        rule = next(
            (rule for rule in rules if rule == "sorted" or match_classes(classes, model, rule)[0] == classes), ""
        )
        how = by.get(str(rule), "")
    else:
        how = "the class map"
    text = f"{len(classes)} folder{'s' * (len(classes) != 1)} matched" + (f" by {how}" if how and classes else "")
    count = None if model is None else class_count(model)
    if count is not None:
        text += f"; {count - len(set(classes.values()))} of the model's {count} classes have no folder"
    return text


def _equal(one: dict[str, Any], other: dict[str, Any], key: str) -> bool:
    return all(abs(a - b) < 1e-6 for a, b in zip(one[key], other[key], strict=True))


def _normalisation(config: dict[str, Any]) -> str:
    mean, std = (" ".join(f"{value:.4g}" for value in config[key]) for key in ("mean", "std"))
    return f"mean {mean}, std {std}"


def _crop(config: dict[str, Any]) -> str:
    return f"{config['interpolation']}, crop {config['crop_pct']:.4g} of the resized {config['crop_mode']} view"
