"""Relevance maps of images with masks, batch by batch: what the tests of relevance maps go through."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn

from relevit.data.samples import Sample, as_sample
from relevit.errors import UserError
from relevit.evaluation.items import Advance, Item, LeftOut
from relevit.explainers import EXPLAINERS, forward_with_relevance
from relevit.models.view import EvaluationView, as_picture
from relevit.models.working import working

GEOMETRIES = ("squash", "crop")
TARGETS = ("predicted", "label")


class MapBatch(NamedTuple):
    """Maps in [0, 1], and the masks of the same frame, of a batch of images."""

    items: list[Item]
    maps: Float[Tensor, "batch height width"]
    masks: Bool[Tensor, "batch height width"]  # the object
    ignore: Bool[Tensor, "batch height width"]  # pixels that count for neither side
    predicted: Int[Tensor, " batch"]


def map_batches(
    model: nn.Module,
    view: EvaluationView,
    data: Any,
    left_out: list[LeftOut],
    *,
    geometry: str = "squash",
    target: str = "predicted",
    explainer: str = "gae",
    batch_size: int = 16,
    workers: int = 0,
    progress: Advance | None = None,
) -> Iterator[MapBatch]:
    """The maps of every readable image of `data`, in its order; those that cannot be read are added to `left_out`.

    Args:
        model: any supported classifier; it is in evaluation mode meanwhile, and as before afterwards.
        view: its transform, as `relevit.load` gives it.
        data: a data set of samples (image, mask, label[, ignore[, name]]); it may have `groups`, the class name of each, and
            `objects`, what each shows.
        geometry: "squash" resizes the whole picture to the input size, bilinearly, whatever its shape, and its mask to the nearest
            pixel (the segmentation test); "crop" is the model's own evaluation view. A pixel is of the object where its mask is at
            least 0.5.
        target: whose map, the "predicted" class's or the "label"'s.
        explainer: a name of `relevit.explainers.EXPLAINERS`.
        batch_size: images in one pass.
        workers: threads that read images ahead; 0 reads in this one.
        progress: called with the number of images that are done since its last call.

    Raises:
        UserError: an unknown option, a label outside the model's classes where labels are the target, or no readable image; the
            first two before any image is read, where `data.labels` tells.
    """
    _check(geometry, target, explainer, batch_size)
    classes = getattr(model, "num_classes", None)
    if target == "label" and hasattr(data, "labels"):
        names = getattr(data, "names", None)
        for index, label in enumerate(data.labels):
            _check_label(int(label), classes, f"number {index}" if names is None else str(names[index]))
    read = 0
    with working(model) as device, torch.no_grad():
        for batch in _blocks(_read(data, view, geometry, workers), batch_size):
            left_out += [found for found in batch if isinstance(found, LeftOut)]
            ready = [found for found in batch if isinstance(found, _Ready)]
            if target == "label":
                for each in ready:
                    _check_label(each.label, classes, each.item.name)
            read += len(ready)
            if ready:
                labels = torch.tensor([each.label for each in ready], device=device)
                images = torch.stack([each.image for each in ready]).to(device)
                wanted = labels if target == "label" else None
                logits, maps = forward_with_relevance(model, images, wanted, explainer)
                yield MapBatch(
                    [each.item for each in ready],
                    maps,
                    torch.stack([each.mask for each in ready]).to(device),
                    torch.stack([each.ignore for each in ready]).to(device),
                    logits.argmax(dim=1),
                )
            if progress is not None:
                progress(len(batch))
    if not read:
        first = f": {left_out[0].name}, {left_out[0].reason}" if left_out else ""
        raise UserError(f"none of the {len(data)} images could be read{first}")


class _Ready(NamedTuple):
    """An image in the model's input frame."""

    item: Item
    label: int
    image: Tensor  # (3, height, width)
    mask: Tensor  # (height, width), boolean
    ignore: Tensor  # (height, width), boolean


def _view_of(data: Any, index: int, view: EvaluationView, geometry: str) -> _Ready | LeftOut:
    try:
        sample = as_sample(data[index], index)
    except UserError as error:
        names = getattr(data, "names", None)
        name = f"number {index}" if names is None else str(names[index])
        return LeftOut(name, str(error).removeprefix(f"{name}: "))
    groups, objects = getattr(data, "groups", None), getattr(data, "objects", None)
    group = str(sample.label) if sample.label >= 0 else ""
    item = Item(
        sample.name,
        group if groups is None else str(groups[index]),
        sample.name if objects is None else str(objects[index]),
    )
    if isinstance(sample.image, Tensor):
        size = (3, view.height, view.width)
        if tuple(sample.image.shape) != size:
            return LeftOut(sample.name, f"the tensor is {tuple(sample.image.shape)}, the model takes {size}")
        ignore = np.zeros(sample.mask.shape, bool) if sample.ignore is None else sample.ignore
        mask = torch.from_numpy(sample.mask >= 0.5)
        return _Ready(item, sample.label, sample.image, mask, torch.from_numpy(np.array(ignore)))
    if geometry == "crop":
        image, soft, ignored = view.with_mask(sample.image, sample.mask, sample.ignore)
        return _Ready(item, sample.label, image, soft >= 0.5, ignored)
    return _Ready(item, sample.label, *squash(view, sample))


def squash(
    view: EvaluationView, sample: Sample
) -> tuple[Float[Tensor, "3 height width"], Bool[Tensor, "height width"], Bool[Tensor, "height width"]]:
    """A sample's whole picture at the model's input size, resized bilinearly (by PIL, antialiased) and normalised; its mask and
    ignored pixels resized to the nearest."""
    size = (view.width, view.height)
    picture = as_picture(sample.image).resize(size, Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    ignore = np.zeros(sample.mask.shape, bool) if sample.ignore is None else sample.ignore
    mask, ignored = (
        torch.from_numpy(np.array(Image.fromarray(plane.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0)
        for plane in (sample.mask >= 0.5, ignore)
    )
    return view.normalise(picture), mask, ignored


def _read(data: Any, view: EvaluationView, geometry: str, workers: int) -> Iterator[_Ready | LeftOut]:
    """Every image in order; with `workers` threads, a few are read ahead."""
    if workers <= 0:
        for index in range(len(data)):
            yield _view_of(data, index, view, geometry)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[_Ready | LeftOut]] = deque()
        try:
            for index in range(len(data)):
                ahead.append(pool.submit(_view_of, data, index, view, geometry))
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _blocks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    block: list[Any] = []
    for item in items:
        block.append(item)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _check(geometry: str, target: str, explainer: str, batch_size: int) -> None:
    for name, value, known in (
        ("geometry", geometry, GEOMETRIES),
        ("target", target, TARGETS),
        ("explainer", explainer, sorted(EXPLAINERS)),
    ):
        if value not in known:
            raise UserError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"batch_size must be a whole number from 1, not {batch_size!r}")


def _check_label(label: int, classes: int | None, name: str) -> None:
    if label < 0:
        raise UserError(
            f"the class of {name} is not known, so there is no map of it: name its folder by wnid or class index, give a class "
            "map, or take the predicted class as target"
        )
    if classes is not None and label >= classes:
        raise UserError(f"the label {label} of {name} is not one of the model's classes 0 to {classes - 1}")
