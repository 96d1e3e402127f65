"""The contact sheet: order, escaping, drawings, pages."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from relevit.masking.contact_sheet import TILE, mask_tile, picture_tile, tile_size, write_sheets
from relevit.masking.record import MaskRecord


def entry(name: str, confidence: float, outcome: str = "object", pixels: int = 600) -> MaskRecord:
    return MaskRecord(name, 1, 2, "", outcome, "", 90, 60, pixels, confidence, 0.5, 0.75, 0.012, 0.0)


def unreadable(name: str, fault: str) -> MaskRecord:
    return MaskRecord(name, 1, 2, "", "unreadable", fault)


def tiles(record: MaskRecord) -> dict[str, bytes]:
    mask = np.zeros((60, 90), bool)
    mask[10:30, 20:50] = True
    drawings = {"coarse.png": mask_tile(mask), "refined.png": mask_tile(mask)}
    return {"picture.jpg": picture_tile(Image.new("RGB", (90, 60), (9, 99, 199))), **drawings}


class Page(HTMLParser):
    """Names in the order of the rows, boxes, images, links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.boxes, self.images, self.links, self.tags = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        if tag == "input":
            self.boxes.append(found)
        if tag == "img":
            self.images.append(found)
        if tag == "a":
            self.links.append(found["href"])


def test_rows_are_sorted_and_boxes_as_the_outcome(tmp_path):
    rows = [
        entry("b/sure.jpg", 0.9),
        entry("a/doubt.jpg", 0.1),
        entry("a/out.jpg", 0.5, "excluded"),
        entry("z.jpg", 0.0, "no object found", pixels=0),
        entry("a/small.jpg", 0.05, "too small", pixels=3),
        entry("a/own.jpg", 0.3, "override"),
    ]
    (path,) = write_sheets(tmp_path, [*rows, unreadable("c/broken.jpg", "is no picture")], tiles, title="Masks")
    html = path.read_text()
    page = Page(html)
    assert [box["value"] for box in page.boxes] == [
        "a/small.jpg", "a/doubt.jpg", "a/own.jpg", "a/out.jpg", "b/sure.jpg", "z.jpg",
    ]  # fmt: skip
    assert [box["value"] for box in page.boxes if "checked" in box] == ["a/out.jpg"]
    assert [box["value"] for box in page.boxes if "disabled" not in box] == ["a/doubt.jpg", "a/out.jpg", "b/sure.jpg"]
    assert all(box["aria-label"] == f"exclude {box['value']}" for box in page.boxes)
    assert [image["alt"] for image in page.images[:3]] == [
        "picture a/small.jpg", "coarse mask of a/small.jpg", "refined mask of a/small.jpg",
    ]  # fmt: skip
    assert "c/broken.jpg" in html and "is no picture" in html and "1.2%" in html and "75%" in html


def test_the_page_holds_everything_and_names_are_escaped(tmp_path):
    evil = "a/<script>alert(1)</script>\" onload='x'.jpg"
    (path,) = write_sheets(tmp_path, [entry(evil, 0.5), unreadable("<b>", "<i>")], tiles, title="<u>")
    html = path.read_text()
    page = Page(html)
    assert page.tags.count("script") == 1 and not {"b", "u"} & set(page.tags) and "<i>" not in html.split("</table>")[1]
    assert page.boxes[0]["value"] == evil and evil in page.images[0]["alt"]
    assert not re.search(r"https?://", html) and all(image["src"].startswith("data:image/") for image in page.images)
    assert len(html) < 30_000  # the frame of the page and a row


def test_the_drawing_veils_what_lies_outside():
    mask = np.zeros((60, 90), bool)
    mask[10:30, 45:80] = True
    drawing = Image.open(io.BytesIO(mask_tile(mask)))
    assert drawing.size == tile_size(90, 60) == (TILE, 107)
    opacity = np.asarray(drawing.convert("RGBA"))[..., 3]
    inside = (int(20 * 107 / 60), int(60 * TILE / 90))  # row, column
    assert opacity[inside] == 0 and opacity[5, 5] > 150 and opacity[100, 100] > 150
    assert opacity[20 * 107 // 60, 20 * TILE // 90] > 150  # left of it
    edge = np.asarray(drawing.convert("RGBA"))[inside[0], :, 0]
    assert 250 < edge.max() and abs(int(edge.argmax()) - 45 * TILE / 90) <= 1  # the white line begins at the object


def test_tiles_of_any_shape():
    for width, height in ((1, 1), (7, 3000), (4000, 30), (33, 20)):
        size = tile_size(width, height)
        assert max(size) == TILE and min(size) >= 1
        assert Image.open(io.BytesIO(picture_tile(Image.new("RGB", (width, height))))).size == size
        assert Image.open(io.BytesIO(mask_tile(np.ones((height, width), bool)))).size == size


def test_the_picture_stands_in_its_row_once(tmp_path):
    one = entry("a.jpg", 0.5)
    (path,) = write_sheets(tmp_path, [one], tiles, title="Masks")
    content = base64.b64encode(tiles(one)["picture.jpg"]).decode()
    assert path.read_text().count(content) == 1


def test_pages(tmp_path):
    rows = [entry(f"{number:02d}.jpg", number / 10) for number in range(7)]
    paths = write_sheets(tmp_path, [*rows, unreadable("x.jpg", "gone")], tiles, title="Masks", page=3)
    assert [path.name for path in paths] == ["contact_sheet.html", "contact_sheet_2.html", "contact_sheet_3.html"]
    pages = [Page(path.read_text()) for path in paths]
    assert [[box["value"][:2] for box in page.boxes] for page in pages] == [
        ["00", "01", "02"],
        ["03", "04", "05"],
        ["06"],
    ]
    assert set(pages[1].links) == {"contact_sheet.html", "contact_sheet_3.html"}
    assert ["gone" in path.read_text() for path in paths] == [False, False, True]
    (tmp_path / "contact_sheet_mine.html").write_text("")
    write_sheets(tmp_path, rows[:2], tiles, title="Masks", page=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contact_sheet.html", "contact_sheet_mine.html"]
    (path,) = write_sheets(tmp_path, [], tiles, title="Masks")
    assert "0 images" in path.read_text()
