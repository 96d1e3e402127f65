"""The names of a model's classes, from a file of weights, from what lies beside it, or from a file that the user gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relevit.errors import UserError
from relevit.models.weights.reading import Stored

KEYS = (
    "class_names",
    "classes",
    "class_to_idx",
    "idx_to_class",
    "id2label",
    "label2id",
    "label_names",
    "labels",
    "CLASSES",
)
_BESIDE = (*KEYS, "config", "args")
_ENDINGS = (".json", ".txt", ".yaml", ".yml")
_UNNAMED = re.compile(r"LABEL_\d+")  # what transformers writes where nobody gave a name
_WITHIN = 3  # mappings within mappings in which names are looked for
_LARGEST = 4 << 20  # bytes of a file beside the weights that is read for names


def find_class_names(stored: Stored, count: int, given: str | None) -> tuple[list[str] | None, str]:
    """The names of `count` classes in the head's order, None where they are not told; and a sentence on where they come from.

    Raises UserError for a file that the user gives and that is none of this many names.
    """
    if given is not None:
        names = read_class_names(Path(given))
        if len(names) != count:
            raise UserError(f"{given} names {len(names)} classes, but the weights have a head for {count}.")
        return names, f"class names: from {given}, as given"
    found = [*_in_content(stored.content), *_beside(stored.home)]
    for names, where in found:
        if len(names) == count:
            return names, f"class names: {where}"
    for names, where in found:
        return None, f"class names: {where} names {len(names)} classes, the head has {count}, so they are not used"
    return None, ""


def read_class_names(path: Path) -> list[str]:
    """The names of a file (JSON, YAML or a name on each line), or of a folder of class folders in sorted order."""
    if path.is_dir():
        return sorted(inner.name for inner in path.iterdir() if inner.is_dir() and not inner.name.startswith("."))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"The class names {path} cannot be read ({getattr(error, 'strerror', None) or error})."
        ) from error
    names = _of_text(path, text)
    if not names:
        raise UserError(
            f"{path} has no class names: give a JSON list, a JSON object {{name: index}}, or a name on each line."
        )
    return names


def _of_text(path: Path, text: str) -> list[str] | None:
    if path.suffix.lower() not in (".json", ".yaml", ".yml"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    import yaml

    try:
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return None
    own = names_of(content)
    return own or next((names for names, _ in _in_content(content if isinstance(content, Mapping) else {})), None)


def names_of(value: Any) -> list[str] | None:
    """Names in their order, of a list of them, of {name: index} or of {index: name}; None for anything else."""
    if isinstance(value, Mapping) and value:
        if all(isinstance(key, str) and _whole(index) for key, index in value.items()):
            pairs = {int(index): name for name, index in value.items()}
            return _in_order(pairs) if len(pairs) == len(value) else None
        if all(_whole(index) and isinstance(name, str) for index, name in value.items()):
            return _in_order({int(index): name for index, name in value.items()})
        return None
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and value:
        names = [str(name) for name in value if isinstance(name, str)]
        return names if len(names) == len(value) and len(set(names)) == len(names) else None
    return None


def _in_order(names: Mapping[int, str]) -> list[str] | None:
    if sorted(names) != list(range(len(names))) or all(_UNNAMED.fullmatch(name) for name in names.values()):
        return None
    return [names[index] for index in range(len(names))]


def _whole(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdecimal())


def _in_content(content: Mapping[Any, Any], where: tuple[str, ...] = ()) -> Iterator[tuple[list[str], str]]:
    """Names under their usual keys, in mappings and in argparse's options, outer ones first."""
    for key in KEYS:
        names = names_of(content.get(key))
        if names:
            yield names, f"from {'.'.join([*where, key])} in the file"
    if len(where) < _WITHIN:
        for key, value in content.items():
            inner = value if isinstance(value, Mapping) else getattr(value, "__dict__", None)
            if isinstance(key, str) and isinstance(inner, Mapping):
                yield from _in_content(inner, (*where, key))


def _beside(folder: Path) -> Iterator[tuple[list[str], str]]:
    """Names in files that are called by one of the keys, and in a config or a file of arguments."""
    for stem in _BESIDE:
        for ending in _ENDINGS:
            path = folder / f"{stem}{ending}"
            if (
                not path.is_file()
                or path.stat().st_size > _LARGEST
                or (stem in ("config", "args") and ending == ".txt")
            ):
                continue
            try:
                names = _of_text(path, path.read_text(encoding="utf-8-sig"))
            except (OSError, UnicodeDecodeError):
                continue
            if names:
                yield names, f"from {path}"
