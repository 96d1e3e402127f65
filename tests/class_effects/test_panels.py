"""Panels: which images are shown, and how they stand in a page."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pyarrow as pa
from PIL import Image

from predicted import predicted
from relevit.evaluation.accuracy.comparison import changed
from relevit.evaluation.accuracy.predictions import Predictions
from relevit.report.panels import Answer, Panel, drawn, spread, tile
from relevit.report.pictures import tile_uri
from relevit.report.templating import template_environment
from relevit.report.words import number

BEFORE = np.array([0, 0, 0, 1, 1, 1, 0, 1], bool)
AFTER = np.array([1, 1, 0, 0, 0, 1, 1, 1], bool)
SAME = np.array([0, 0, 1, 0, 0, 1, 0, 1], bool)
GROUPS = np.array(list("aabacbaa"))
KINDS = {"corrected": ~BEFORE & AFTER, "unchanged": SAME, "ruined": BEFORE & ~AFTER}


def answers(hits: np.ndarray, first: np.ndarray) -> Predictions:
    """Rows of a model that was right where `hits` says so, with these first answers."""
    table = predicted(hits, list(GROUPS)).table
    top5 = [[int(each), 11, 12, 13, 14] for each in first]
    place = table.schema.get_field_index("top5")
    return Predictions(
        table.set_column(place, table.schema.field(place), pa.array(top5, table.schema.field(place).type))
    )


def test_kinds() -> None:
    first = np.arange(8)
    before, after = (answers(hits, said) for hits, said in ((BEFORE, first), (AFTER, np.where(SAME, first, -1))))
    kinds = changed(before, after)
    assert {kind: members.tolist() for kind, members in kinds.items()} == {
        kind: members.tolist() for kind, members in KINDS.items()
    }
    found = drawn(kinds, GROUPS, each=9)
    assert {kind: sorted(rows) for kind, rows in found.items()} == {
        "corrected": [0, 1, 6],
        "unchanged": [2, 5, 7],
        "ruined": [3, 4],
    }


def test_an_order_drawn_by_the_seed_and_no_class_twice() -> None:
    firsts = {drawn(KINDS, GROUPS, each=1, seed=seed)["corrected"][0] for seed in range(20)}
    assert firsts == {0, 1, 6}
    assert drawn(KINDS, GROUPS, each=2, seed=4) == drawn(KINDS, GROUPS, each=2, seed=4)
    for seed in range(20):
        two = drawn(KINDS, GROUPS, each=2, seed=seed)["unchanged"]  # of two of class b and one of a
        assert sorted(GROUPS[two]) == ["a", "b"]
    assert spread([3, 0, 4], GROUPS, 2) == [3, 4] and spread([3, 0, 4], GROUPS, 3) == [3, 4, 0]


def test_a_tile_has_the_size_of_a_tile() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (389, 523, 3), dtype=np.uint8)
    small = rng.integers(0, 256, (37, 41, 3), dtype=np.uint8)
    assert tile(photo).shape == (143, 192, 3) and tile(small).shape == (37 * 4, 41 * 4, 3)
    assert tile(photo, np.zeros((389, 523)), np.ones((389, 523))).shape == (143, 192, 3)
    np.testing.assert_array_equal(tile(small)[::4, ::4], small)


def test_a_map_is_over_the_picture_and_the_mask_is_an_outline() -> None:
    grey, relevance, mask = np.full((192, 192, 3), 128, np.uint8), np.zeros((192, 192)), np.zeros((192, 192))
    relevance[:, 100:] = 1
    mask[50:90, 20:60] = 1
    shown = tile(grey, relevance, mask).astype(int)
    assert shown[10, 150].sum() > shown[10, 50].sum() + 200  # bright where there is relevance
    assert (shown[50, 30] == 255).all() and (shown[70, 40] < 255).all()


def test_uris_hold_the_picture() -> None:
    rng = np.random.default_rng(1)
    smooth = (
        np.kron(rng.integers(0, 256, (3, 3, 3)), np.ones((40, 40, 1))).astype(np.uint8)
        + rng.integers(0, 3, (120, 120, 3), dtype=np.uint8) // 2
    )
    for picture, kind in (
        (smooth, "jpeg"),
        (rng.integers(0, 256, (20, 20, 3), dtype=np.uint8), "png"),
        (np.kron(smooth[:40, :40], np.ones((4, 4, 1), np.uint8)), "png"),
    ):
        uri = tile_uri(picture)
        assert uri.startswith(f"data:image/{kind};base64,")
        back = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
        assert back.shape == picture.shape
        if kind == "png":
            np.testing.assert_array_equal(back, picture)


def test_panels_in_a_page() -> None:
    picture = np.zeros((10, 10, 3), np.uint8)
    item = Panel(
        "a/<b>.png",
        "cow & calf",
        [("image", picture), ("map, first", picture)],
        [Answer("first", "horse", 0.25, False), Answer("second", "cow", 0.755, True)],
    )
    template = template_environment().from_string(
        '{% import "macros.html" as parts with context %}{{ parts.panels([item]) }}'
    )
    html = template.render(item=item)
    assert html.count("<img") == 2 and "cow &amp; calf" in html and "a/&lt;b&gt;.png" in html
    assert re.search(r'first</span> <span class="prediction wrong">horse <small>25%</small>', html)
    assert re.search(r'second</span> <span class="prediction right">cow <small>76%</small>', html)
    assert 'alt="map, first, cow &amp; calf"' in html


def test_numbers() -> None:
    assert (number(-1.25), number(1.25, 1, True), number(-0.04, 1, True), number(None)) == (
        "\u22121.2",
        "+1.2",
        "0.0",
        "\u2013",
    )
