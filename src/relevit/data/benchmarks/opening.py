"""Opening what a user names: a folder, a YAML of paths, a tar file, a data set of timm's."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from relevit.data.benchmarks.discovery import find_benchmarks, own_sets, spelling
from relevit.data.benchmarks.table import BENCHMARKS, check_protocol
from relevit.data.benchmarks.tar_files import has_tars, open_tars
from relevit.data.benchmarks.timm_sets import PACKAGES, is_timm_string, open_timm
from relevit.data.composition.composed_sets import CONFIG
from relevit.data.listing import holds_classes
from relevit.data.sets import ImageSet, StreamSet
from relevit.errors import UserError

AnySet = ImageSet | StreamSet
YAML = (".yaml", ".yml")


def open_benchmark(spec: str | os.PathLike[str], protocol: str = "standard") -> dict[str, AnySet]:
    """The sets that `spec` stands for, opened, by name.

    `spec` is one of
    - a folder: all that `find_benchmarks` finds there;
    - a YAML file {name: path}, paths relative to the file. A name of BENCHMARKS opens that benchmark, whatever its folder is called; any other name
      is one's own: a folder of class folders, one made by `relevit compose`, tar files, or a string of timm's;
    - a tar file, or a folder of tar files;
    - a data set of timm's, such as hfds/NAME?split=test (timm_sets.py).

    Raises UserError for what is none of these, cannot be read, or holds no images; of a YAML file for all its lines at once.
    """
    check_protocol(protocol)
    text, path = os.fspath(spec), Path(spec)
    if path.is_file() and path.suffix.lower() in YAML:
        return {name: opener() for name, opener in _from_yaml(path, protocol).items()}
    if has_tars(path):
        return {path.stem if path.is_file() else path.name: open_tars(path)}
    if path.is_dir():
        found = find_benchmarks(path, protocol).found
        if not found:
            raise UserError(f"{path} holds no benchmark and no class folders; expected {path}/<class>/<image>")
        return {each.name: each.open() for each in found}
    if is_timm_string(text):
        return {text.partition("?")[0]: open_timm(text)}
    if path.exists():
        raise UserError(f"{path} is no benchmark: give a folder, a YAML file of paths, or an uncompressed tar file")
    raise UserError(
        f"there is no {text}: give a folder, a YAML file of paths, a tar file, or a data set of timm's ({', '.join(PACKAGES)})"
    )


def _from_yaml(path: Path, protocol: str) -> dict[str, Callable[[], AnySet]]:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} should name benchmarks with their paths, a line each: imagenet-a: /data/imagenet-a")
    sets: dict[str, Callable[[], AnySet]] = {}
    faults: list[str] = []
    for name, place in content.items():
        try:
            opened = _named(str(name), place, path.parent, protocol)
            faults += [f"{each} is named twice" for each in opened if each in sets]
            sets |= opened
        except UserError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise UserError(f"{path}: " + "; ".join(faults))
    return sets


def _named(name: str, place: Any, base: Path, protocol: str) -> dict[str, Callable[[], AnySet]]:
    """The sets of one line of a YAML file."""
    if not isinstance(place, str) or not place:
        raise UserError(f"{place!r} is no path")
    folder = base / Path(place).expanduser()
    benchmark = next((each for each in BENCHMARKS if spelling(each) == spelling(name)), None)
    if not folder.exists():
        if benchmark is None and is_timm_string(place):
            return {name: partial(open_timm, place)}
        raise UserError(f"there is no folder {folder}")
    if benchmark is not None:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder")
        return dict(BENCHMARKS[benchmark].sets(folder, protocol))
    if not has_tars(folder) and not (folder / CONFIG).is_file() and not holds_classes(folder):
        known = ", ".join(BENCHMARKS)
        raise UserError(
            f"this is none of the benchmarks that are known ({known}), and {folder} is no folder of class folders"
        )
    return dict(own_sets(name, folder))
