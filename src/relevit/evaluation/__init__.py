"""Measuring classifiers: `evaluate` runs one or several models over one or several benchmarks, each image read once.

One file per measurement: accuracy.py (R@1 and R@5), background_gap.py (of sets made by `relevit compose`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from relevit.data.benchmarks import ClassFolders, composed_sets
from relevit.data.samples import class_index
from relevit.data.transforms import evaluation_view
from relevit.errors import UserError
from relevit.evaluation.accuracy import Accuracy, hits_at
from relevit.evaluation.background_gap import BackgroundGap, background_gaps
from relevit.models import data_config, load

Transform = Callable[[Image.Image], Tensor]
Model = nn.Module | tuple[nn.Module, Transform] | str | Path
Benchmark = str | Path | Any  # a folder of class folders, or anything with __len__ and __getitem__


@dataclass(frozen=True)
class Report:
    """The figures of every model on every benchmark.

    Attributes:
        accuracies: benchmark -> model -> Accuracy; the keys in the order in which they were given.
        unreadable: benchmark -> what was left out: (file, reason). It counts as neither hit nor miss.
        gaps: folder of composed sets -> model -> BackgroundGap, where mixed_same and mixed_rand are among the sets.
    """

    accuracies: dict[str, dict[str, Accuracy]]
    unreadable: dict[str, list[tuple[str, str]]]
    gaps: dict[str, dict[str, BackgroundGap]] = field(default_factory=dict)

    def accuracy(self, model: str | None = None, benchmark: str | None = None) -> Accuracy:
        """One model's figures on one benchmark; the first of each if not named."""
        models = self.accuracies[benchmark if benchmark is not None else next(iter(self.accuracies))]
        return models[model if model is not None else next(iter(models))]

    def to_dict(self) -> dict:
        """Everything but the single hits, ready for JSON."""
        return {
            name: {
                "models": {model: accuracy.to_dict() for model, accuracy in models.items()},
                "unreadable": [{"file": file, "reason": reason} for file, reason in self.unreadable[name]],
            }
            for name, models in self.accuracies.items()
        }

    def save(self, path: str | Path) -> None:
        """Writes `to_dict()` as JSON, with the versions that it was computed with."""
        import timm

        versions = {"torch": torch.__version__, "timm": timm.__version__}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        gaps = {name: {model: gap.to_dict() for model, gap in models.items()} for name, models in self.gaps.items()}
        content = {"benchmarks": self.to_dict(), **({"background_gap": gaps} if gaps else {}), "versions": versions}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def table(self) -> Table:
        """R@1 and R@5 in percent with their 95% intervals, a row per model, for a terminal."""
        table = Table(title="Accuracy in percent (95% interval)", title_justify="left")
        table.add_column("benchmark", overflow="fold")
        table.add_column("model", overflow="fold")
        for name in ("images", "R@1", "R@5"):
            table.add_column(name, justify="right")
        for name, models in self.accuracies.items():
            for model, accuracy in models.items():
                table.add_row(name, model, f"{len(accuracy):,}", *(_cell(*pair) for pair in _figures(accuracy)))
            table.add_section()
        for name, gaps in self.gaps.items():
            for model, gap in gaps.items():
                cell = _cell(gap.gap, gap.interval)
                table.add_row(f"{name}: background gap", model, f"{gap.objects:,} objects", cell, "")
            table.add_section()
        return table


def evaluate(
    model: Model | Mapping[str, Model],
    benchmark: Benchmark | Mapping[str, Benchmark],
    *,
    transform: Transform | None = None,
    class_map: str | Path | Mapping[str, int] | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Report:
    """R@1 and R@5 of one or several models, each with its own preprocessing, in one pass over the images.

    Args:
        model: an `nn.Module`, what `relevit.load` returns, or a name for `relevit.load`; or a dictionary of these by name.
        benchmark: a folder of class folders, one made by `relevit compose`, or a dataset; or a dictionary of these by name. A dataset has `__len__` and
            `__getitem__`, and gives pairs (image, class index) or samples with `.image` and `.label`; an image is a PIL image, a
            uint8 array (height, width, 3), or a float tensor (3, height, width) that is used as it is.
        transform: preprocessing of modules given without one; by default the evaluation view of the model's own data config.
        class_map: for folders whose names are neither wnids nor class indices: a mapping, or a JSON or CSV file, from folder name
            to class index.
        batch_size: images in a batch.
        workers: processes that read images; 0 reads in this one.
        device: where to run; by default where the model is.
        progress: shows a progress bar.

    Returns:
        A `Report`. Models are left as they were (training mode, device).

    Raises:
        UserError: a folder without images, a folder name that is no class of a model, a label outside a model's classes, or no
            readable image at all.
    """
    models = {name: _prepared(each, transform) for name, each in _named(model, "model").items()}
    if not models:
        raise UserError("there is no model to evaluate")
    benchmarks = {
        name: dataset
        for given, each in _named(benchmark, "benchmark").items()
        for name, dataset in _opened(given, each)
    }
    if not benchmarks:
        raise UserError("there is no benchmark to evaluate on")
    # What can be wrong is found before any long work.
    labels_of = {
        (b, m): _class_labels(dataset, net, class_map)
        for b, dataset in benchmarks.items()
        for m, (net, _) in models.items()
    }
    accuracies: dict[str, dict[str, Accuracy]] = {}
    unreadable: dict[str, list[tuple[str, str]]] = {}
    with Progress(transient=True, console=Console(stderr=True), disable=not progress) as bar:
        for name, dataset in benchmarks.items():
            labels = {m: labels_of[name, m] for m in models}
            task = bar.add_task(f"{name}", total=len(dataset))
            loader = DataLoader(
                _Views(dataset, [view for _, view in models.values()]), batch_size, num_workers=workers, collate_fn=list
            )
            accuracies[name], unreadable[name] = _measure(
                name, models, labels, loader, device, partial(bar.advance, task)
            )
    return Report(accuracies, unreadable, background_gaps(accuracies))


class _Views(Dataset):
    """Every item of a dataset in the view of each model: (views, label), or (None, (file, reason)) if it can't be read."""

    def __init__(self, dataset: Any, transforms: Sequence[Transform]) -> None:
        self.dataset, self.transforms = dataset, transforms

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[list[Tensor] | None, Any]:
        try:
            item = self.dataset[index]
        except UserError as error:
            paths = getattr(self.dataset, "paths", None)
            return None, (str(paths[index]) if paths else f"number {index}", str(error))
        image = item.image if hasattr(item, "image") else item[0]
        label = item.label if hasattr(item, "label") else item[1]
        if isinstance(image, Tensor):
            return [image] * len(self.transforms), int(label)
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        return [transform(image) for transform in self.transforms], int(label)


def _measure(
    name: str,
    models: Mapping[str, tuple[nn.Module, Transform]],
    labels: Mapping[str, np.ndarray | None],
    loader: DataLoader,
    device: str | torch.device | None,
    advance: Callable[[int], None],
) -> tuple[dict[str, Accuracy], list[tuple[str, str]]]:
    """One pass over a benchmark with every model."""
    hits: dict[str, list[Tensor]] = {m: [] for m in models}  # each (2, batch)
    unreadable: list[tuple[str, str]] = []
    groups: list[int] = []
    with _evaluating([net for net, _ in models.values()], device), torch.inference_mode():
        for batch in loader:
            unreadable += [reason for views, reason in batch if views is None]
            read = [(views, label) for views, label in batch if views is not None]
            groups += [label for _, label in read]
            for position, (m, (net, _)) in enumerate(models.items()):
                if not read:
                    break
                images = torch.stack([views[position] for views, _ in read])  # (batch, 3, height, width)
                logits = net(images.to(_device(net))).float()
                folder_class = labels[m]
                target = [label if folder_class is None else int(folder_class[label]) for _, label in read]
                wrong = [label for label in target if not 0 <= label < logits.shape[1]]
                if wrong:
                    raise UserError(
                        f"{name} has the label {wrong[0]}, but {m} knows the classes 0 to {logits.shape[1] - 1}"
                    )
                wanted = torch.tensor(target, device=logits.device)
                hits[m].append(torch.stack([hits_at(logits, wanted, 1), hits_at(logits, wanted, 5)]).cpu())
            advance(len(batch))
    if not groups:
        reason = f": {unreadable[0][1]}" if unreadable else ""
        raise UserError(f"no image of {name} could be read{reason}")
    dataset = loader.dataset.dataset  # type: ignore[attr-defined]
    class_names = np.array([_class_name(dataset, group) for group in groups])
    shown = _objects(dataset, {file for file, _ in unreadable})
    joined = {m: torch.cat(hits[m], dim=1).numpy() for m in models}  # (2, images): top-1 and top-5
    return {m: Accuracy(found[0], found[1], class_names, shown) for m, found in joined.items()}, unreadable


def _named(given: Any, kind: str) -> dict[str, Any]:
    """A single model or benchmark as a dictionary of one."""
    if isinstance(given, Mapping):
        return {str(name): each for name, each in given.items()}
    return {str(given) if isinstance(given, str | Path) else kind: given}


def _prepared(model: Model, transform: Transform | None) -> tuple[nn.Module, Transform]:
    if isinstance(model, str | Path):
        return load(str(model))
    if isinstance(model, tuple):
        return model
    return model, transform or evaluation_view(data_config(model))


def _opened(name: str, benchmark: Benchmark) -> list[tuple[str, Any]]:
    """The data sets of a benchmark by name: of a folder made by `relevit compose`, one for each set, NAME/SET."""
    if not isinstance(benchmark, str | Path):
        return [(name, benchmark)]
    sets = composed_sets(benchmark)
    if sets is None:
        return [(name, ClassFolders(benchmark))]
    return [(f"{name.rstrip('/')}/{each}", dataset) for each, dataset in sets.items()]


def _class_labels(dataset: Any, model: nn.Module, class_map: Any) -> np.ndarray | None:
    """The model's class of each class folder, by the folder's number; None where labels are class indices already."""
    if not isinstance(dataset, ClassFolders):
        return None
    classes = class_index(dataset.folders, model, class_map)
    return np.array([classes[folder] for folder in dataset.folders])


def _class_name(dataset: Any, group: int) -> str:
    return dataset.folders[group] if isinstance(dataset, ClassFolders) else str(group)


def _objects(dataset: Any, left_out: set[str]) -> np.ndarray | None:
    """What each image that was read shows; None where the data set does not know."""
    if not isinstance(dataset, ClassFolders) or dataset.objects is None:
        return None
    shown = zip(dataset.paths, dataset.objects, strict=True)
    return np.array([each for path, each in shown if str(path) not in left_out])


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in itertools.chain(model.parameters(), model.buffers())), torch.device("cpu"))


@contextmanager
def _evaluating(models: Sequence[nn.Module], device: str | torch.device | None) -> Iterator[None]:
    """Models in evaluation mode on a device; afterwards the mode of every module and the device are as before."""
    before = [(model, _device(model), [(m, m.training) for m in model.modules()]) for model in models]
    try:
        for model in models:
            model.eval()
            if device is not None:
                model.to(device)
        yield
    finally:
        for model, home, modes in before:
            for module, training in modes:
                module.training = training
            model.to(home)


def _figures(accuracy: Accuracy) -> list[tuple[float, tuple[float, float]]]:
    return [(accuracy.r1, accuracy.r1_interval), (accuracy.r5, accuracy.r5_interval)]


def _cell(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.1f} ({interval[0]:.1f} to {interval[1]:.1f})"
