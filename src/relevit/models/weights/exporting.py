"""A model's weights back in the form of the file that they came from: container, prefix, names, number format.

Where timm converts another library's names and shapes, the way back is not written down anywhere: the entries of the file's tensors
are numbered, the numbers go through the same conversion, and where they come out tells the place of every weight.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.files import atomic_folder, atomic_write
from relevit.models.weights.fitting import adapted, converter
from relevit.models.weights.reading import INDEX, SAFETENSORS, Stored
from relevit.models.weights.sets import WeightSet, choose, find_sets

_COPIED = (".json", ".txt", ".yaml", ".yml", ".md", ".model")  # what goes along from a folder beside the weights
_LARGEST = 16 << 20


class Exported(NamedTuple):
    """What was written, and what is to be known of it."""

    path: Path
    notes: list[str]


def export_like(
    model: nn.Module, stored: Stored, out: str | os.PathLike[str], *, weights: str | None = None
) -> Exported:
    """Write `model` to `out` in the form of `stored`; of several sets of weights all that fit, or the one called `weights`.

    Raises UserError where the file has no place for a weight of the model.
    """
    sets = find_sets(stored.content, model.state_dict(), converter(model))
    if not sets:
        raise UserError(f"{stored.path} has no weights of this model's architecture: give the file that it came from.")
    if weights is not None:
        sets = [choose(sets, weights, stored.path)[0]]
    notes: list[str] = []
    for each in sets:
        _put(stored.content, each, written_back(model, each, stored.path, notes))
    names = [each.name or "the file itself" for each in sets]
    if len(sets) > 1:
        notes.append(
            f"the weights are in all sets that fit: {', '.join(names)}; --weights NAME writes one of them alone"
        )
    kept = [str(key) for key in stored.content if not any(each.container.path[:1] == (key,) for each in sets)]
    if kept and all(each.container.path for each in sets):
        notes.append(f"as before in the file: {', '.join(kept[:10])}{', ...' if len(kept) > 10 else ''}")
    place = Path(out)
    if stored.path.is_dir() or len(stored.files) > 1:
        _write_folder(stored, place)
    else:
        _write_file(stored, next(iter(stored.files)), stored.content, place)
    return Exported(place, list(dict.fromkeys(notes)))


def written_back(model: nn.Module, chosen: WeightSet, source: object, notes: list[str]) -> dict[str, Tensor]:
    """The tensors of a container that hold the model's weights, by the file's names and in its number formats."""
    tensors, own = chosen.container.tensors, model.state_dict()
    placed = adapted(model, chosen, tensors, [])
    by_identity = {id(tensor): name for name, tensor in tensors.items()}
    new: dict[str, Tensor] = {}
    rest = []
    for name, value in own.items():
        there = by_identity.get(id(placed.get(name)))
        if there is None and not chosen.converted and chosen.prefix + name in tensors:
            there = chosen.prefix + name  # resampled when it was read
        if there is None:
            rest.append(name)
            continue
        if tensors[there].shape != value.shape:
            notes.append(f"{there} is {tuple(value.shape)} now, {tuple(tensors[there].shape)} in {source}")
        new[there] = value.detach().to(tensors[there].dtype).clone()
    return new | (_by_numbers(model, chosen, placed, rest, source) if rest else {})


def _by_numbers(
    model: nn.Module, chosen: WeightSet, placed: Mapping[str, Tensor], rest: list[str], source: object
) -> dict[str, Tensor]:
    """Where the entries of converted weights came from, found by numbering the entries of the file's tensors from 1."""
    tensors, own = chosen.container.tensors, model.state_dict()
    starts, numbered, start = {}, {}, 1
    for name, tensor in tensors.items():
        starts[name] = start
        numbered[name] = torch.arange(start, start + tensor.numel(), dtype=torch.float64).view(tensor.shape)
        start += tensor.numel()
    converted = adapted(model, chosen, numbered, [])
    flat = torch.cat([torch.zeros(1), *(tensor.detach().flatten().float() for tensor in tensors.values())])
    count = torch.zeros(start, dtype=torch.int32)
    for name in rest:
        value, at = own[name].detach().float(), converted.get(name)
        ids = None if at is None or at.shape != value.shape else at.round().long()
        if (
            at is not None
            and ids is not None
            and torch.equal(ids.to(at.dtype), at)
            and bool(((ids >= 0) & (ids < start)).all())
        ):
            fixed = ids == 0
            flat[ids[~fixed]] = value[~fixed]
            count[ids[~fixed].flatten()] += 1
        else:
            fixed = torch.ones_like(value, dtype=torch.bool)
        before = placed.get(name)
        if fixed.any() and (before is None or before.shape != value.shape or (before != value)[fixed].any()):
            raise UserError(
                f"{source} has no place for {name} of the model: it was made or resampled when the file was read, and it is "
                "another one now; export it without --like."
            )
    if int(count.max()) > 1:
        raise UserError(f"{source} ties weights that differ in the model: export it without --like.")
    new = {}
    for name, tensor in tensors.items():
        entries = slice(starts[name], starts[name] + tensor.numel())
        if count[entries].any():
            new[name] = flat[entries].view(tensor.shape).to(tensor.dtype)
    return new


def _put(content: Mapping[Any, Any], chosen: WeightSet, new: Mapping[str, Tensor]) -> None:
    """Replaces tensors in the file's own container, parameters by parameters."""
    place: Any = content
    for key in chosen.container.path:
        place = place[key]
    for name, tensor in new.items():
        parameter = isinstance(place[name], nn.Parameter)
        place[name] = nn.Parameter(tensor, place[name].requires_grad) if parameter else tensor


def _write_file(stored: Stored, like: Path, content: Any, place: Path) -> None:
    if like.suffix == SAFETENSORS:
        plain = {name: tensor.contiguous() for name, tensor in content.items()}
        atomic_write(place, safetensors.torch.save(_apart(plain), stored.metadata or {"format": "pt"}))
        return
    atomic_write(place, lambda file: torch.save(content, file, _use_new_zipfile_serialization=not stored.legacy))


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """No two tensors in one storage, which safetensors asks for."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        shared = tensor.untyped_storage().data_ptr() in seen or tensor.untyped_storage().nbytes() != tensor.nbytes
        apart[name] = tensor.clone() if shared else tensor
        seen.add(apart[name].untyped_storage().data_ptr())
    return apart


def _write_folder(stored: Stored, place: Path) -> None:
    """The files of weights under their names, and the small files beside them."""
    with atomic_folder(place) as temporary:
        _copy_beside(stored.home, temporary)
        for file, names in stored.files.items():
            part: Any = {name: stored.content[name] for name in names} if names else stored.content
            if len(names) == 1 and not isinstance(part[names[0]], Tensor):  # one of several models
                part = part[names[0]]
            _write_file(stored, file, part, temporary / file.name)
        for index in temporary.glob(f"*{INDEX}"):
            table = json.loads(index.read_text(encoding="utf-8"))
            if isinstance(table.get("metadata"), dict) and "total_size" in table["metadata"]:
                named = set(table["weight_map"])
                sizes = [value.nbytes for name, value in stored.content.items() if name in named]
                table["metadata"]["total_size"] = sum(sizes)
                index.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _copy_beside(folder: Path, place: Path, without: tuple[str, ...] = ()) -> list[str]:
    """Copies the small files beside weights, but for what is there already and for endings in `without`; their names."""
    copied = []
    for file in sorted(folder.iterdir()):
        small = file.is_file() and file.suffix in _COPIED and file.stat().st_size <= _LARGEST
        if small and not file.name.endswith(without) and not (place / file.name).exists():
            shutil.copyfile(file, place / file.name)
            copied.append(file.name)
    return copied


def export_pretrained(model: Any, like: Path, place: Path) -> Exported:
    """Write a model of transformers by its `save_pretrained`, in the number format of `like`, with the small files beside it.

    Raises UserError where `like` is a model of another class.
    """
    config = json.loads((like / "config.json").read_text(encoding="utf-8"))
    named = (config.get("architectures") or [type(model).__name__])[0]
    if named != type(model).__name__:
        raise UserError(f"{like} is a {named}, the model a {type(model).__name__}: give the folder that it came from.")
    kind = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    with atomic_folder(place) as temporary:
        model.to(getattr(torch, kind, torch.float32)).save_pretrained(temporary)
        copied = _copy_beside(like, temporary, without=(INDEX,))
    notes = [f"written by save_pretrained, in {kind}"]
    return Exported(place, notes + ([f"as before: {', '.join(copied)}"] if copied else []))


def export_plain(model: nn.Module, place: Path) -> Exported:
    """Write the bare state dictionary to a file of the form that its ending names."""
    if place.suffix == SAFETENSORS:
        tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        atomic_write(place, safetensors.torch.save(_apart(tensors), {"format": "pt"}))
    elif place.suffix in (".pth", ".pt", ".bin", ".tar"):
        weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        atomic_write(place, lambda file: torch.save(weights, file))
    else:
        raise UserError(f"{place} has no ending of a file of weights: .pth, .pt, .bin, .tar or .safetensors.")
    return Exported(place, [])
