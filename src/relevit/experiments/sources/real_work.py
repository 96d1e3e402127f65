"""What jobs on real data do: masks, samples, fine-tuning, evaluation, measurements. Everything stays in the output folder, and an
interrupted job goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relevit.data.annotations.convert import convert_masks
from relevit.data.listing import list_images
from relevit.data.manifest import TRAINING, write_manifest
from relevit.data.splits import paper_split
from relevit.errors import UserError
from relevit.evaluation.frozen.linear_probe import train_linear_probe
from relevit.experiments.sources import work
from relevit.experiments.sources.places import (
    GTSEGS,
    IMAGENET_S,
    NEIGHBOURS,
    PUBLISHED_MASKS,
    TRAIN,
    data_path,
    has,
    open_set,
    weights_path,
)
from relevit.files import atomic_folder
from relevit.masking.run.mask_run import make_masks
from relevit.models.loading import data_config, is_checkpoint, load
from relevit.models.view import evaluation_view
from relevit.training.loop import finetune

CANDIDATES = 10  # pictures of each class that get automatic masks, where there are no annotated ones to go by


def annotated_masks(protocol: str, folder: Path) -> dict[str, Any]:
    """ImageNet-S in our own layout, in OUT/masks/annotated. In the protocol `paper` ignored pixels count as background."""
    out = folder / "masks" / "annotated"
    if not out.exists():  # written in one step
        train = data_path(folder, TRAIN) if has(folder, TRAIN) else None
        source = data_path(folder, IMAGENET_S)
        pictures = None if (source / "train-semi").is_dir() else train
        convert_masks("imagenet-s", source, out, images=pictures, protocol=protocol, skip_bad=True)
    return {"pictures": _count(out / "images"), "masks": _count(out / "masks")}


def automatic_masks(backbone: str, size: int | None, folder: Path) -> dict[str, Any]:
    """TokenCut's masks in OUT/masks/automatic: those as published where they are there, else made by the backbone of the protocol,
    of the pictures that have annotated masks, or of the first pictures of each class."""
    out = folder / "masks" / "automatic"
    if has(folder, PUBLISHED_MASKS):
        if not out.exists():
            train = data_path(folder, TRAIN) if has(folder, TRAIN) else None
            convert_masks("tokencut", data_path(folder, PUBLISHED_MASKS), out, images=train, skip_bad=True)
        return {"masks": _count(out / "masks"), "source": "published"}
    pictures = _candidates(folder)
    run = make_masks(load(backbone)[0], pictures, out / "masks", size=size)
    images = out / "images"
    if not images.exists():
        images.symlink_to(pictures.resolve(), target_is_directory=True)
    return {
        "masks": _count(out / "masks"),
        "source": backbone,
        "images": len(getattr(run, "records", ())) or _count(images),
    }


def samples(
    masks: str,
    classes: int,
    per_class: int,
    seed: int | None,
    class_seed: int | None,
    name: str,
    folder: Path,
) -> dict[str, Any]:
    """The paper's split of the masks, or another choice by seed, in OUT/splits/NAME.csv."""
    root = folder / "masks" / masks
    least = 520 if masks == "automatic" else None
    found = paper_split(
        root / "masks",
        root / "images",
        format="png",
        classes=classes,
        per_class=per_class,
        seed=seed,
        class_seed=class_seed,
        min_pixels=least,
        skip_bad=True,
    )
    place = folder / "splits" / f"{name}.csv"
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():  # of a start that was interrupted before the result was written
        place.unlink()
    write_manifest(place, found.rows)
    training = sorted({row.class_name for row in found.rows if row.split == TRAINING})
    return {"training": sum(row.split == TRAINING for row in found.rows), "rows": len(found.rows), "set_a": training}


def train(
    name: str,
    model: Mapping[str, Any],
    protocol: str,
    masks: str,
    split: str,
    method: str,
    folder: Path,
    explainer: str = "gae",
    seed: int = 0,
    factor: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One fine-tuning, in OUT/runs/NAME; its best checkpoint is what is measured."""
    root = folder / "masks" / masks
    ignore = root / "ignore"
    lr = model["lr"]
    if lr is None and factor != 1.0:
        raise UserError(f"{model['name']} has no rate of its own that could be multiplied")
    result = finetune(
        original(model, protocol, folder),
        root / "images",
        folder / "runs" / name,
        masks=root / "masks",
        ignore=ignore if ignore.is_dir() else None,
        manifest=folder / "splits" / f"{split}.csv",
        method=method,
        explainer=explainer,
        lr="auto" if lr is None else lr * factor,
        temperature=model["temperature"],
        protocol=protocol,
        seed=seed,
        progress=False,
        track=(),
        previews=0,
        **dict(settings or {}),
        **dict(options or {}),
    )
    metrics = result.metrics
    kept = ("before", "after", "best_epoch", "epochs", "steps", "seconds", "warnings")
    return {key: metrics[key] for key in kept if key in metrics}


def evaluate(
    name: str, model: Mapping[str, Any], run: str | None, benchmark: str, protocol: str, folder: Path
) -> dict[str, Any]:
    """R@1 and R@5 of a run's model, or of the original for run None, on a benchmark; every image's row is in OUT/evaluations/NAME."""
    loaded = _with_view(model, run, protocol, folder)
    return work.evaluate(loaded, {benchmark: open_set(folder, benchmark, protocol)}, name, folder, protocol)[benchmark]


def measure(
    test: str,
    data: str,
    model: Mapping[str, Any],
    run: str | None,
    protocol: str,
    limit: int | None,
    folder: Path,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A test of relevit.evaluation.measurements of a run's model, or of the original: its figures by name."""
    loaded = _with_view(model, run, protocol, folder)
    if data == GTSEGS:
        return work.measure(test, loaded, str(data_path(folder, GTSEGS)), limit, options)
    if data == NEIGHBOURS:
        place = data_path(folder, NEIGHBOURS)
        return work.measure(test, loaded, str(place / "test"), limit, options, str(place / "train"))
    return work.measure(test, loaded, open_set(folder, data, protocol), limit, options)


def effects(
    model: Mapping[str, Any],
    run: str,
    variant: str,
    benchmark: str,
    rows_before: str,
    rows_after: str,
    protocol: str,
    name: str,
    folder: Path,
) -> dict[str, Any]:
    """The page of what a fine-tuning changed on a benchmark, class by class and image by image."""
    models = {
        f"{model['name']} original": (_with_view(model, None, protocol, folder), rows_before),
        f"{model['name']} {variant}": (_with_view(model, run, protocol, folder), rows_after),
    }
    return work.effects(models, benchmark, open_set(folder, benchmark, protocol), name, folder, protocol)


def probe(name: str, model: Mapping[str, Any], protocol: str, folder: Path) -> dict[str, Any]:
    """A linear head for a self-supervised backbone, on ImageNet's training pictures (appendix L), in OUT/probes/NAME."""
    out = folder / "probes" / name
    if is_checkpoint(out):
        return {"checkpoint": True}
    net, view = _viewed(_loaded(model, protocol, folder), protocol)
    return train_linear_probe(net, view, str(data_path(folder, TRAIN)), out).to_dict()


def original(model: Mapping[str, Any], protocol: str, folder: Path) -> nn.Module:
    """A model before fine-tuning."""
    if model.get("probe"):
        return load(str(folder / "probes" / model["name"]), protocol=protocol)[0]
    return _loaded(model, protocol, folder)


def _loaded(model: Mapping[str, Any], protocol: str, folder: Path) -> nn.Module:
    """By timm's name with its weights, with a file of weights, or from a checkpoint folder."""
    file = weights_path(folder, model["name"])
    if file is not None and Path(file).is_dir():
        return load(file, protocol=protocol)[0]
    return load(model["architecture"], checkpoint=file, protocol=protocol)[0]


def _with_view(model: Mapping[str, Any], run: str | None, protocol: str, folder: Path) -> tuple[nn.Module, Any]:
    """The best checkpoint of a run, or the original, with its preprocessing."""
    if run is None:
        return _viewed(original(model, protocol, folder), protocol)
    place = folder / "runs" / run / "best"
    if not place.is_dir():
        raise UserError(f"{place} is gone: remove {folder / 'jobs' / run}.json to have it made again")
    return _viewed(load(str(place))[0], protocol)


def _viewed(net: nn.Module, protocol: str) -> tuple[nn.Module, Any]:
    """A model on the GPU if there is one, with its preprocessing."""
    net = net.to("cuda" if torch.cuda.is_available() else "cpu")
    return net, evaluation_view(data_config(net, protocol))  # type: ignore[arg-type]


def _candidates(folder: Path) -> Path:
    """The pictures that get automatic masks, as a folder of class folders."""
    annotated = folder / "masks" / "annotated" / "images"
    if annotated.is_dir():
        return annotated
    if has(folder, IMAGENET_S) and (data_path(folder, IMAGENET_S) / "train-semi").is_dir():
        return data_path(folder, IMAGENET_S) / "train-semi"
    return _first_of_each(data_path(folder, TRAIN), folder / "masks" / "candidates")


def _first_of_each(train: Path, out: Path) -> Path:
    """Links to the first pictures of each class, by name."""
    if not out.exists():
        with atomic_folder(out) as made:
            for folder in sorted(path for path in train.iterdir() if path.is_dir() and not path.name.startswith(".")):
                for image in list_images(folder)[:CANDIDATES]:
                    place = made / folder.name / image.name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.symlink_to(image.resolve())
    return out


def _count(folder: Path) -> int:
    return len(list_images(folder)) if folder.is_dir() else 0
