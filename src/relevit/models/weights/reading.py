"""The content of a file or folder of weights: PyTorch's pickles, old ones too, safetensors, and both in shards.

Nothing of a file is run (`safe_types`). What comes out is what the training loop wrote, nested as it was.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from safetensors import SafetensorError

from relevit.errors import UserError
from relevit.models.weights.options import ENDINGS
from relevit.models.weights.safe_types import load_pickle

SAFETENSORS = ".safetensors"
_NAMES = ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model")  # as libraries call files of weights
INDEX = ".index.json"


@dataclass(frozen=True)
class Stored:
    """What is stored in a file or folder.

    path: as it was given. content: mappings by name, with tensors somewhere in them. files: the files that were read, each with
    the keys of `content` that came from it; all of them where it is empty. metadata: of the header of a safetensors file.
    legacy: whether the file is in torch's format from before zip files.
    """

    path: Path
    content: Mapping[Any, Any]
    files: dict[Path, list[str]]
    metadata: dict[str, str] = field(default_factory=dict)
    legacy: bool = False

    @property
    def home(self) -> Path:
        """The folder that the files lie in."""
        return next(iter(self.files)).parent


def read(path: str | os.PathLike[str]) -> Stored:
    """The content of a file or folder, on the CPU. Raises UserError where there is none, or where it is no weights or damaged."""
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UserError(f"There is no file {path} with weights.")
    if path.name.endswith(INDEX):
        return _read_shards(path)
    content, metadata = _read_file(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no weights: expected tensors by name, or {{'state_dict': ...}}.")
    legacy = path.suffix != SAFETENSORS and not zipfile.is_zipfile(path)
    return Stored(path, content, {path: []}, metadata, legacy)


def is_weights_folder(folder: Path) -> bool:
    """Whether a folder has files of weights as libraries call them."""
    return bool(_own_files(folder))


def _read_folder(folder: Path) -> Stored:
    """A folder as accelerate, a Trainer or a hub writes it: one file, one in shards, or several models' files."""
    files = _own_files(folder) or _own_files(folder / "best")
    if not files:
        files = sorted(file for file in folder.iterdir() if file.is_file() and file.name.endswith((*ENDINGS, ".tar")))
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:10])
            raise UserError(f"{folder} has several files that may be the weights ({names}): give one of them.")
    if not files:
        raise _no_weights(folder)
    if len(files) == 1:
        stored = read(files[0])
        return Stored(folder, stored.content, stored.files, stored.metadata, stored.legacy)
    contents = {file.name.removesuffix(INDEX).rsplit(".", 1)[0]: read(file) for file in files}
    return Stored(
        folder,
        {name: stored.content for name, stored in contents.items()},
        {file: [name] for name, stored in contents.items() for file in stored.files},
    )


def _own_files(folder: Path) -> list[Path]:
    """The files of weights of a folder, each model's once: an index before its shards, safetensors before a pickle."""
    if not folder.is_dir():
        return []
    names = {file.name for file in folder.iterdir() if file.is_file()}
    for ending in (SAFETENSORS, ".bin"):
        for stem in _NAMES:
            plain = f"{stem}{ending}"
            first = f"{plain}{INDEX}" if f"{plain}{INDEX}" in names else plain
            further = sorted(
                (name for name in names if name.startswith(f"{stem}_") and name.endswith(ending)),
                key=lambda name: (len(name), name),
            )  # accelerate's model_1, model_2, ...
            numbered = [name for name in further if name[len(stem) + 1 : -len(ending)].isdecimal()]
            if first in names:
                return [folder / name for name in (first, *numbered)]
    return []


def _no_weights(folder: Path) -> UserError:
    """What to give in place of a folder in which no weights lie."""
    if list(folder.glob("*.distcp")) or list(folder.glob("*/*.distcp")):
        line = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth"
        return UserError(f"{folder} holds a checkpoint in distributed parts: make one file of it by `{line}`.")
    inner = sorted((path for path in folder.glob("checkpoint-*") if _own_files(path)), key=lambda path: len(path.name))
    hint = f": give one of its checkpoints, such as {inner[-1]}" if inner else ""
    return UserError(f"{folder} has no file of weights in it{hint}.")


def _read_shards(index: Path) -> Stored:
    """A model in several files, which an index names."""
    try:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[str, list[str]] = {}
        for name, file in table.items():
            shards.setdefault(Path(file).name, []).append(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of weights in shards ({error}).") from error
    content: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for file, names in shards.items():
        if not (index.parent / file).is_file():
            raise UserError(f"{index} names {file}, which is not beside it: a part of the weights is missing.")
        read_now, metadata = _read_file(index.parent / file)
        absent = [name for name in names if name not in read_now]
        if absent:
            raise UserError(f"{index.parent / file} lacks {absent[0]}, which {index.name} says is in it.")
        content.update({name: read_now[name] for name in names})
    files = {index.parent / file: names for file, names in shards.items()}
    return Stored(index, content, files, metadata)


def _read_file(path: Path) -> tuple[Any, dict[str, str]]:
    """Content and metadata of one file; what it is, its ending or its beginning tells."""
    with path.open("rb") as file:
        beginning = file.read(9)
    if path.suffix != SAFETENSORS and not (len(beginning) == 9 and beginning[8:] == b"{"):
        return load_pickle(path), {}
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            return safetensors.torch.load_file(path), dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as weights ({reason}): it may be cut short.") from error
