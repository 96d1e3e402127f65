"""From the names of class folders to a model's class indices: wnid, index, the model's own names, or a mapping file."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from timm.data import ImageNetInfo
from torch import nn

from relevit.data.pairing import plain
from relevit.data.reading import read_json, read_lines
from relevit.errors import UserError
from relevit.models.families import class_count, imagenet_subset, labels
from relevit.processes import is_first
from relevit.terminal import remark

RULES = ("wnid", "index", "names", "sorted")
ClassMap = str | os.PathLike[str] | Mapping[str, int]
_WNID = re.compile(r"n\d{8}")
_SHOWN = 5


class Matched(NamedTuple):
    """Folders with their class index, and those without, with the reason."""

    classes: dict[str, int]
    unknown: dict[str, str]


def class_index(
    folders: Iterable[str], model: nn.Module | None = None, class_map: ClassMap | None = None
) -> dict[str, int]:
    """The model's class index of each class folder. Raises UserError that names the folders without one.

    `class_map` None: by the names themselves, in this order: the model's own class names (`label_names` of its config),
    wnids (n01440764, in the ImageNet order that fits the model's number of classes), class indices ("7", "0007"). One
    of "names", "wnid", "index" demands this rule. "sorted": the folders in sorted order are the classes 0, 1, ..., as
    torchvision's ImageFolder has it; there must be as many as the model has classes, and it is never guessed. Otherwise
    a mapping or its file: JSON {folder: index}, or CSV with two columns, folder and index.
    """
    classes, unknown = match_classes(folders, model, class_map)
    if unknown:
        raise UserError(unknown_message(unknown))
    return classes


def match_classes(folders: Iterable[str], model: nn.Module | None = None, class_map: ClassMap | None = None) -> Matched:
    """As `class_index`, but folders without a class are returned and not raised."""
    names = sorted(dict.fromkeys(folders))
    rule = class_map if isinstance(class_map, str) and class_map in RULES else None
    if class_map is not None and rule is None:
        table, reason = _read_map(class_map), "it is not in the class map"
    elif rule == "sorted":
        by_order = _sorted(names, model)
        say_by_order(names, model)
        return Matched(by_order, {})
    else:
        rule = rule or _guess(names, model)
        table, reason = _table(rule, names, model)
    table = {plain(folder): index for folder, index in table.items()}
    classes = {name: table[plain(name)] for name in names if plain(name) in table}
    unknown = {name: reason for name in names if name not in classes}
    count = _count(model)
    for name, index in list(classes.items()):
        if index < 0 or (count is not None and index >= count):
            unknown[name] = f"class {index} is not among the model's {count or ''} classes (0 to {(count or 1) - 1})"
            del classes[name]
    return Matched(classes, unknown)


_said: set[tuple[str, ...]] = set()  # what was said of a match is said once


def say_by_order(names: Sequence[str], model: nn.Module | None) -> None:
    """Tell, once, that class folders and a model's classes have nothing in common but their order; nothing where the names agree."""
    if model is None or not names:
        return
    own = class_names(model)
    differing = [
        index
        for index, name in enumerate(names)
        if plain(own.get(index, "")) != plain(name) and not (name.isdecimal() and int(name) == index)
    ]
    if not differing:
        return
    first = differing[0]
    called = f"the model calls class {first} {own[first]}" if first in own else "the model has no names for its classes"
    shown = ", ".join(f"{name} is class {index}" for index, name in list(enumerate(names))[:_SHOWN])
    more = ", ..." if len(names) > _SHOWN else ""
    note = f"note: classes are matched by order alone ({shown}{more}), and {called}: give a class map if that is wrong"
    if is_first() and (note, *names) not in _said:
        remark(note)
    _said.add((note, *names))


def unknown_message(unknown: Mapping[str, str]) -> str:
    """One sentence on folders without a class, with the remedy."""
    shown = "; ".join(f"{name}: {reason}" for name, reason in list(unknown.items())[:_SHOWN])
    rest = f"; and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return (
        f"{len(unknown)} class folder{'s have' if len(unknown) > 1 else ' has'} no class of the model ({shown}{rest}): "
        "name folders by wnid or class index, or give a class map, JSON {folder: index} or a CSV of folder,index."
    )


def class_names(model: nn.Module) -> dict[int, str]:
    """The model's own class names by index, from its config (`label_names`); empty where it has none."""
    return labels(model)


def _guess(names: list[str], model: nn.Module | None) -> str:
    """The rule that the folders' names follow."""
    own = {plain(name) for name in class_names(model).values()} if model is not None else set()
    if any(plain(name) in own for name in names):
        return "names"
    return "wnid" if any(_WNID.fullmatch(name) for name in names) else "index"


def _table(rule: str, names: list[str], model: nn.Module | None) -> tuple[dict[str, int], str]:
    """Class indices by folder name under a rule, and why a folder that is not in it has none."""
    if rule == "names":
        own = {name: index for index, name in class_names(model).items()} if model is not None else {}
        return own, "it is none of the model's class names"
    if rule == "wnid":
        subset = imagenet_subset(model) if model is not None else "imagenet-1k"
        if subset is None:
            return (
                {},
                f"it may be a wnid, but the model has {_count(model)} classes, which is no ImageNet that timm knows",
            )
        return {wnid: index for index, wnid in enumerate(ImageNetInfo(subset).label_names())}, f"no wnid of {subset}"
    numbers = {name: int(name) for name in names if re.fullmatch(r"[0-9]+", name)}
    return numbers, "it is neither a wnid nor a class index"


def _sorted(names: list[str], model: nn.Module | None) -> dict[str, int]:
    count = _count(model)
    if count is not None and len(names) != count:
        raise UserError(
            f"The class map 'sorted' needs one folder for each of the model's {count} classes, there are {len(names)}: "
            "name the folders by class index, or give a mapping file."
        )
    return {name: index for index, name in enumerate(names)}


def _read_map(source: ClassMap) -> dict[str, int]:
    if isinstance(source, Mapping):
        return {str(folder): _whole(index, folder, "the class map") for folder, index in source.items()}
    path, what = (
        Path(source),
        f"a class map, JSON {{folder: index}} or CSV folder,index (or give one of {', '.join(RULES)})",
    )
    if path.suffix.lower() == ".json":
        return {str(folder): _whole(index, folder, path) for folder, index in read_json(path, what).items()}
    rows = list(csv.reader(read_lines(path, what)))
    if rows and len(rows[0]) >= 2 and not _is_whole(rows[0][1]):
        rows = rows[1:]  # a header
    mapping: dict[str, int] = {}
    for row in rows:
        if len(row) != 2:
            raise UserError(
                f"The class map {path} has a line of {len(row)} columns ({','.join(row)}): expected folder,index."
            )
        folder = row[0].strip()
        if folder in mapping:
            raise UserError(f"The class map {path} names the folder {folder} twice: keep one of the lines.")
        mapping[folder] = _whole(row[1].strip(), folder, path)
    return mapping


def _whole(value: Any, folder: object, source: object) -> int:
    if not _is_whole(value):
        raise UserError(f"In {source}, {folder} has the class {value!r}: expected a whole number, the class index.")
    return int(value)


def _is_whole(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"\s*[0-9]+\s*", value) is not None
    return not isinstance(value, bool) and isinstance(value, int)


def _count(model: nn.Module | None) -> int | None:
    return None if model is None else class_count(model)
