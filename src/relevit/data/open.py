"""The one way from what a user names, or has in memory, to sets of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from relevit import terminal
from relevit.data.benchmarks.class_folders import class_folders, composed_sets, own_sets
from relevit.data.benchmarks.discovery import Discovery, find_benchmarks, spelling
from relevit.data.benchmarks.gtsegs import gtsegs
from relevit.data.benchmarks.table import BENCHMARKS, check_protocol
from relevit.data.benchmarks.tar_files import has_tars, open_tars
from relevit.data.benchmarks.timm_sets import PACKAGES, is_timm_string, open_timm
from relevit.data.builtin.sets import BUILTIN, builtin_sets
from relevit.data.composition.composed_sets import CONFIG
from relevit.data.folder import images_with_masks
from relevit.data.listing import holds_classes
from relevit.data.reading import read_text
from relevit.data.sets import ImageSet, StreamSet, of_dataset
from relevit.errors import UserError

AnySet = ImageSet | StreamSet
Opener = Callable[[], AnySet]
Place = str | os.PathLike[str]
YAML, HDF5 = (".yaml", ".yml"), (".mat", ".h5", ".hdf5")


class Sets(dict[str, Opener]):
    """Sets by name, each with a function that opens it; `discovery`: the search that found them, where there was one."""

    discovery: Discovery | None = None


def sets(
    given: Any,
    masks: Place | None = None,
    *,
    ignore: Place | None = None,
    masked: bool = False,
    protocol: str = "standard",
) -> Sets:
    """The sets that `given` stands for, by name; nothing is opened before a set's function is called.

    Args:
        given: one of
            - "builtin" (all test sets of the built-in benchmark), "builtin/SET", "builtin/train", "builtin/validation[/SET]";
            - a folder made by `relevit compose`: its sets, GIVEN/SET;
            - a folder with benchmarks (`find_benchmarks`), one benchmark, or class folders, called GIVEN;
            - a folder of images and masks, or with the inner folders `images` and `masks`, where masks are asked for;
            - a file gtsegs_ijcv.mat; a tar file, or a folder of tar files;
            - a YAML file {name: path}, paths relative to the file: a name of BENCHMARKS opens that benchmark, whatever its folder
              is called, any other name is one's own;
            - a data set of timm's, such as hfds/NAME?split=test (timm_sets.py);
            - a data set in memory, see `of_dataset`, or a dictionary of any of these by name.
        masks, ignore: folders of masks and of pixels to ignore, for a folder of images.
        masked: whether samples need masks; of a plain folder without `masks` the alpha channel is taken.
        protocol: "standard" or "paper", see `find_benchmarks`.

    Raises UserError for what is none of these, and for masks where the set has its own.
    """
    check_protocol(protocol)
    if isinstance(given, Mapping):
        return _by_name(given, masks, ignore, masked, protocol)
    if not isinstance(given, str | os.PathLike):
        return Sets({"benchmark": partial(of_dataset, given, "benchmark", masked)})
    text, path = os.fspath(given), Path(given)
    builtin = builtin_sets(text)
    if builtin is not None:
        _no_masks("the built-in benchmark has exact masks", masks, ignore)
        return Sets(builtin)
    if path.suffix.lower() in HDF5:
        _no_masks(f"{path} has masks of its own", masks, ignore)
        return Sets({text: partial(gtsegs, path)})
    if masked or masks is not None:
        return _masked(text, path, masks, ignore)
    return _of_file(text, path, protocol) if not path.is_dir() or has_tars(path) else _of_folder(text, path, protocol)


def one_of(
    given: Any,
    name: str | None = None,
    masks: Place | None = None,
    *,
    ignore: Place | None = None,
    masked: bool = False,
    protocol: str = "standard",
) -> tuple[str, ImageSet]:
    """One set of what `given` stands for, with its name, opened; see `sets`.

    name: which of several, or the last part of its name. Without it, of the built-in test sets the one in distribution is
    taken, and ImageNet's validation images have their own labels, not the reassessed ones; a command says so. Raises
    UserError for several sets of which none is named, and for a set that can only be read from its beginning to its end.
    """
    openers = dict(sets(given, masks, ignore=ignore, masked=masked, protocol=protocol))
    several = len(openers)
    if name is not None:
        chosen = [name] if name in openers else [each for each in openers if each.endswith(f"/{name}")]
        if len(chosen) != 1:
            raise UserError(f"there is no benchmark {name} in {given}; there are: {', '.join(openers)}")
        openers = {chosen[0]: openers[chosen[0]]}
    elif isinstance(given, str) and given in (BUILTIN, f"{BUILTIN}/validation"):
        openers = dict(list(openers.items())[:1])
    elif "imagenet" in openers:
        openers.pop("imagenet-real", None)
    if len(openers) > 1:
        raise UserError(f"{given} holds several sets: give --benchmark, one of {', '.join(openers)}")
    ((found, opener),) = openers.items()
    if name is None and several > 1:
        terminal.tell(f"{given} stands for several sets, {found} is taken; --benchmark takes another one")
    opened = opener()
    if isinstance(opened, StreamSet):
        raise UserError(
            f"{opened.name} can only be read from its beginning to its end: give its images as folders or tar files"
        )
    return found, opened


def is_set_with_masks(given: Place) -> bool:
    """Whether a text or path names a set that has masks of its own, and is no plain folder of images."""
    path = Path(given)
    if path.suffix.lower() in HDF5 or builtin_sets(os.fspath(given)) is not None:
        return True
    return (path / CONFIG).is_file()


def _by_name(given: Mapping[Any, Any], masks: Place | None, ignore: Place | None, masked: bool, protocol: str) -> Sets:
    """Sets by the names given, NAME/SET where one stands for several."""
    found = Sets()
    for name, each in given.items():
        if not isinstance(each, str | os.PathLike):
            found[str(name)] = partial(of_dataset, each, str(name), masked)
            continue
        openers = sets(each, masks, ignore=ignore, masked=masked, protocol=protocol)
        start = f"{os.fspath(each).rstrip('/')}/"  # of composed sets' names
        for inner, opener in openers.items():
            found[str(name) if len(openers) == 1 else f"{str(name).rstrip('/')}/{inner.removeprefix(start)}"] = opener
    return found


def _no_masks(own: str, masks: Place | None, ignore: Place | None) -> None:
    if masks is not None or ignore is not None:
        raise UserError(f"{own}: leave out {'--masks' if masks is not None else '--ignore'}")


def _masked(text: str, path: Path, masks: Place | None, ignore: Place | None) -> Sets:
    """The samples of a folder, with masks."""
    if not path.is_dir():
        raise UserError(
            f"{path} is not there, or no data to measure on: give a folder of images, gtsegs_ijcv.mat, or builtin"
        )
    composed = None if masks is not None or not (path / CONFIG).is_file() else composed_sets(path)
    if composed is not None:
        start = text.rstrip("/")
        return Sets(
            {f"{start}/{name}": partial(_masked_set, opener, path / name, ignore) for name, opener in composed.items()}
        )
    if masks is None and (path / "images").is_dir() and (path / "masks").is_dir():
        path, masks = path / "images", path / "masks"
    return Sets({text: partial(images_with_masks, path, masks, ignore=ignore)})


def _masked_set(opener: Opener, folder: Path, ignore: Place | None) -> ImageSet:
    """A composed set with its masks."""
    opener()  # raises where its pictures are not those of the manifest
    return images_with_masks(folder / "images", folder / "masks", ignore=ignore)


def _of_folder(text: str, folder: Path, protocol: str) -> Sets:
    composed = composed_sets(folder)
    if composed is not None:
        return Sets({f"{text.rstrip('/')}/{name}": opener for name, opener in composed.items()})
    discovery = find_benchmarks(folder, protocol)
    known = any(found.name.split("/")[0] in BENCHMARKS for found in discovery.found)
    if not known and (holds_classes(folder) or not discovery.found):
        return Sets({text: partial(class_folders, folder)})
    found = Sets({found.name: found.open for found in discovery.found})
    found.discovery = discovery
    return found


def _of_file(text: str, path: Path, protocol: str) -> Sets:
    """The sets of a YAML file, of tar files, or of a string of timm's."""
    if path.is_file() and path.suffix.lower() in YAML:
        return _from_yaml(path, protocol)
    if has_tars(path):
        return Sets({path.stem if path.is_file() else path.name: partial(open_tars, path)})
    if is_timm_string(text):
        return Sets({text.partition("?")[0]: partial(open_timm, text)})
    if path.exists():
        raise UserError(f"{path} is no benchmark: give a folder, a YAML file of paths, or an uncompressed tar file")
    raise UserError(
        f"there is no {text}: give a folder, a YAML file of paths, a tar file, or a data set of timm's ({', '.join(PACKAGES)})"
    )


def _from_yaml(path: Path, protocol: str) -> Sets:
    """Raises UserError for all lines at once."""
    try:
        content: Any = yaml.safe_load(read_text(path, "names of benchmarks with their paths"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} should name benchmarks with their paths, a line each: imagenet-a: /data/imagenet-a")
    found = Sets()
    faults: list[str] = []
    for name, place in content.items():
        try:
            opened = _line(str(name), place, path.parent, protocol)
            faults += [f"{each} is named twice" for each in opened if each in found]
            found.update(opened)
        except UserError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise UserError(f"{path}: " + "; ".join(faults))
    return found


def _line(name: str, place: Any, base: Path, protocol: str) -> Mapping[str, Opener]:
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
        return BENCHMARKS[benchmark].sets(folder, protocol)
    if not has_tars(folder) and not (folder / CONFIG).is_file() and not holds_classes(folder):
        known = ", ".join(BENCHMARKS)
        raise UserError(
            f"this is none of the benchmarks that are known ({known}), and {folder} is no folder of class folders"
        )
    return own_sets(name, folder)
