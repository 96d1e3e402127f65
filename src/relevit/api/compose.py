"""`relevit compose`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from relevit.terminal import stderr, stdout

# As in data/shift_tests.py (a test compares them); here so that the help needs no torch.
_ALL = ["all"]
_POSITIONS = [0.1, 0.3, 0.5, 0.7, 0.9]
_AREAS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
_ANGLES = [float(angle) for angle in range(0, 360, 20)]


def compose(
    images: str,
    out: str,
    masks: str | None = None,
    backgrounds: str | None = None,
    sets: list[str] = _ALL,
    size: int = 224,
    repeats: int = 1,
    limit: int | None = None,
    seed: int = 0,
    positions: list[float] = _POSITIONS,
    areas: list[float] = _AREAS,
    angles: list[float] = _ANGLES,
    area: float = 0.2,
    format: Literal["png", "jpg"] = "png",
    skip_bad: bool = False,
    workers: int = 4,
    progress: bool = True,
) -> None:
    """Make shift tests of your own objects: other places, sizes, angles and backgrounds.

    location, size and rotation put each object on scenes of --backgrounds, over a grid of values (as SI-Score does); original,
    only_fg, only_bg, mixed_same, mixed_rand and mixed_next change its background for others of --images (as the Backgrounds Challenge
    does), which needs --masks. Each set is OUT/SET/images/<class> with masks beside, OUT/manifest.csv says what every picture is made
    of, and `relevit evaluate MODEL --data OUT` measures on all of them. The same call goes on where it was stopped.

    Args:
        images: a folder of class folders with pictures, or with cut-outs that have an alpha channel.
        out: the folder for the sets.
        masks: masks of the same relative names, grey PNG; without them the images are cut-outs.
        backgrounds: a folder of scenes, for location, size and rotation.
        sets: the sets to make, of location, size, rotation, original, only_fg, only_bg, mixed_same, mixed_rand, mixed_next; all makes those that are possible.
        size: pixels, of both sides of pictures on scenes, of the short side of the others.
        repeats: backgrounds for each object and value.
        limit: pictures of a set at most, drawn by the seed.
        seed: of all draws.
        positions: centres of the object in location, across and down, as shares of the picture; every pair is a position.
        areas: areas of the object in size, as shares of the picture.
        angles: turns of the object in rotation, in degrees counterclockwise.
        area: area of the object where it does not vary, as a share of the picture.
        format: of the pictures, lossless or JPEG of quality 95; masks are PNG.
        skip_bad: leaves out faulty images and backgrounds in place of stopping.
        workers: threads that make pictures.
        progress: shows a progress bar.
    """
    from rich.progress import Progress
    from rich.table import Table

    from relevit.data.composition.composed_sets import check_apart, check_place, missing, prepare, write_compositions
    from relevit.data.composition.shift_tests import Grid

    place = Path(out)
    check_place(place)
    check_apart(place, images=images, masks=masks, backgrounds=backgrounds)
    with Progress(transient=True, console=stderr(), disable=not (progress and sys.stderr.isatty())) as bar:
        task = bar.add_task("checking", total=None)
        prepared = prepare(
            images,
            backgrounds,
            masks,
            sets=sets,
            seed=seed,
            size=size,
            repeats=repeats,
            limit=limit,
            grid=Grid(positions, areas, angles, area),
            suffix=f".{format}",
            skip_bad=skip_bad,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        check_place(place, prepared.config)
        bar.remove_task(task)
        for fault in prepared.faults:
            stderr().print(f"left out: {fault.kind}, {fault.file}", highlight=False, markup=False, soft_wrap=True)
        table = Table(title="Pictures to compose", title_justify="left")
        table.add_column("set")
        table.add_column("pictures", justify="right")
        for name, count in prepared.counts.items():
            table.add_row(name, f"{count:,}")
        stdout().print(table)
        for remark in prepared.remarks:
            stdout().print(remark, highlight=False, markup=False, soft_wrap=True)
        left = len(missing(place, prepared.compositions))
        there = len(prepared.compositions) - left
        known = f"; {there:,} are there already" if there else ""
        stdout().print(f"{len(prepared.compositions):,} pictures in all{known}", highlight=False)
        task = bar.add_task("composing", total=left)
        write_compositions(
            place,
            prepared.compositions,
            prepared.sources,
            prepared.config,
            workers=workers,
            advance=lambda: bar.advance(task),
        )
    stdout().print(
        f"sets and their manifest: {place}; measure with: relevit evaluate MODEL --data {place}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
