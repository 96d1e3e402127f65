"""`relevit compose`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from relevit import terminal
from relevit.api import types
from relevit.api.types import public

if TYPE_CHECKING:
    pass


@public
def compose(
    *,
    images: types.Folder,
    out: types.Folder,
    masks: types.Folder | None = None,
    backgrounds: types.Folder | None = None,
    sets: types.Names = ("all",),
    size: types.Count = 224,
    repeats: types.Count = 1,
    limit: types.Count | None = None,
    seed: types.Index = 0,
    positions: Sequence[types.Share] = (0.1, 0.3, 0.5, 0.7, 0.9),
    areas: Sequence[types.Share] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    angles: Sequence[float] = tuple(float(angle) for angle in range(0, 360, 20)),
    area: types.Share = 0.2,
    format: Literal["png", "jpg"] = "png",
    skip_bad: bool = False,
    workers: types.Count = 4,
    progress: bool = True,
) -> dict[str, int]:
    """Make shift tests of your own objects: other places, sizes, angles and backgrounds.

    location, size and rotation put each object on scenes of --backgrounds, over a grid of values (as SI-Score does); original,
    only_fg, only_bg, mixed_same, mixed_rand and mixed_next change its background for others of --images (as the Backgrounds Challenge
    does), which needs --masks. Each set is OUT/SET/images/<class> with masks beside, OUT/manifest.csv says what every picture is made
    of, and `relevit evaluate MODEL --data OUT` measures on all of them. The same call goes on where it was stopped,
    and `torchrun -m relevit compose ...` shares the work among processes.

    Args:
        images: a folder of class folders with pictures, or with cut-outs that have an alpha channel.
        out: the folder for the sets.
        masks: masks of the same relative names, grey PNG; without them the images are cut-outs.
        backgrounds: a folder of scenes, for location, size and rotation.
        sets: the sets to make, of location, size, rotation, original, only_fg, only_bg, mixed_same, mixed_rand, mixed_next; all makes those that are possible.
        size: pixels, of both sides of pictures on scenes, of the short side of the others.
        repeats: backgrounds for each object and value.
        limit: pictures of a set at most, drawn by the seed.
        positions: centres of the object in location, across and down, as shares of the picture; every pair is a position.
        areas: areas of the object in size, as shares of the picture.
        angles: turns of the object in rotation, in degrees counterclockwise.
        area: area of the object where it does not vary, as a share of the picture.
        format: of the pictures, lossless or JPEG of quality 95; masks are PNG.
        skip_bad: leaves out faulty images and backgrounds in place of stopping.
        workers: threads that make pictures.

    Returns:
        The number of pictures of each set.
    """
    from pathlib import Path

    from relevit.data.composition.composed_sets import check_apart, check_place, missing, prepare, write_compositions
    from relevit.report.table import Table

    place = Path(out)
    check_place(place)
    check_apart(place, images=images, masks=masks, backgrounds=backgrounds)
    with terminal.progress("checking") as count:
        prepared = prepare(
            images,
            backgrounds,
            masks,
            sets=sets,
            seed=seed,
            size=size,
            repeats=repeats,
            limit=limit,
            positions=list(positions),
            areas=list(areas),
            angles=list(angles),
            area=area,
            suffix=f".{format}",
            skip_bad=skip_bad,
            workers=workers,
            progress=count,
        )
    check_place(place, prepared.config)
    terminal.remark(*(f"left out: {fault.kind}, {fault.file}" for fault in prepared.faults))
    rows = [(name, f"{pictures:,}") for name, pictures in prepared.counts.items()]
    table = Table("Pictures to compose", ("set", "pictures"), rows)
    left = len(missing(place, prepared.compositions))
    there = len(prepared.compositions) - left
    known = f"; {there:,} are there already" if there else ""
    terminal.tell(table, *prepared.remarks, f"{len(prepared.compositions):,} pictures in all{known}")
    with terminal.progress("composing", left) as advance:
        write_compositions(place, prepared, workers=workers, advance=advance)
    return dict(prepared.counts)


def show(counts: dict[str, int], given: Mapping[str, Any]) -> None:
    """Where the sets lie, and the next command."""
    place = given["out"]
    terminal.show(f"sets and their manifest: {place}; measure with: relevit evaluate MODEL --data {place}")
