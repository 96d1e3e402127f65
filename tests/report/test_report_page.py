"""The report: complete, self-contained, escaped, never over another; and its pictures and tables."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image
from rich.console import Console

from relevit.errors import UserError
from relevit.report.page import render_page
from relevit.report.panels import Answer, Panel, tile
from relevit.report.pictures import STRENGTH, colour, outlined, overlay, tile_uri
from relevit.report.plots import accuracy_svg, map_and_behaviour_svg
from relevit.report.readme import render_readme_picture
from relevit.report.results import Results, markdown_table, readable, signed, terminal_table
from relevit.statistics.estimate import Estimate

MODELS = ["original", "control", "relevance+background_swap"]
SETS = ["in_distribution", "background_shuffled"]
EVIL = "<script>alert('1 & 2$')</script> $"


def figure(mean: float, low: float | None = None, high: float | None = None) -> Estimate:
    """An estimate; without ends, of a single seed."""
    return Estimate(mean, mean if low is None else low, mean if high is None else high, 1, "seeds")


def results(*, width: float | None = 1.3, **more) -> Results:
    means = {MODELS[0]: (97.93, 61.37), MODELS[1]: (97.71, 52.19), MODELS[2]: (95.17, 83.59)}

    def interval(mean: float) -> Estimate:
        return figure(mean) if width is None else figure(mean, mean - width, mean + width)

    values = {m: dict(zip(SETS, map(interval, row), strict=True)) for m, row in means.items()}
    shares = dict(zip(MODELS, map(interval, (53.31, 50.73, 69.91)), strict=True))
    return Results(MODELS, SETS, values, "original", **({"foreground_share": shares} | more))


def case(seed: int, label: str = "seven", after: str = "seven", height: int = 13, width: int = 11) -> Panel:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.float32)
    mask[3:8, 2:7] = 1
    before, after_ = rng.random((2, height, width), np.float32)
    tiles = [("image", tile(image)), ("mask", tile(image, None, mask, dim=0.75))]
    tiles += [("map, before", tile(image, before, mask)), ("map, after", tile(image, after_, mask))]
    answers = [Answer("before", "ring", 0.943, label == "ring"), Answer("after", after, 0.871, label == after)]
    return Panel("background_shuffled/00007", label, tiles, answers)


CASES = {"corrected": [case(1), case(2)], "unchanged": [case(3, after="ring")], "ruined": []}


def render(path: Path, **more) -> str:
    given = {
        "title": "A title",
        "summary": ["First sentence.", "Second sentence."],
        "setup": {"seeds": "5", "command": "relevit demo --full"},
        "results": results(),
        "cases": CASES,
        "notes": ["A note."],
    }
    assert render_page(path, **(given | more)) == path
    return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects the page's text by tag, its attributes, and whether every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    @property
    def words(self) -> str:
        return " ".join(text for tag, text in self.texts if tag != "style")


def test_the_page_needs_nothing_else(tmp_path):
    page = render(tmp_path / "report.html")
    assert "http:" not in page and "https:" not in page and "file:" not in page and "@import" not in page
    assert "<script" not in page and "<iframe" not in page
    reader = Reader(page)
    links = [value for _, name, value in reader.attributes if name in ("src", "href", "xlink:href", "data", "srcset")]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", page))
    identities = [value for _, name, value in reader.attributes if name == "id"]
    assert len(identities) == len(set(identities))
    assert {link[1:] for link in links if link.startswith("#")} <= set(identities)
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(identities)


def test_every_figure_and_word_given_is_on_the_page(tmp_path):
    groups = {"set A classes": results(width=2.1).values}
    page = render(tmp_path / "report.html", results=results(groups=groups), definitions={"control": "labels only"})
    words = Reader(page).words.replace("\u00a0", " ")
    for interval in [v for row in results().values.values() for v in row.values()] + list(
        results().foreground_share.values()
    ):
        assert f"{interval.value:.1f}" in words
        assert f"{interval.low:.1f}–{interval.high:.1f}" in words  # noqa: RUF001
    assert "95.8–100.0" in words and "set A classes" in words  # noqa: RUF001
    for text in ("+22.2", "−9.2", "−2.8"):  # noqa: RUF001
        assert text in words
    for text in [*map(readable, MODELS), *map(readable, SETS), "A title", "First sentence.", "Second sentence."]:
        assert text in words
    for text in (
        "relevit demo --full",
        "A note.",
        "labels only",
        "94%",
        "87%",
        "Corrected",
        "Ruined",
        "There was none.",
    ):
        assert text in words
    assert "Wrong before, right after" in words  # the rule by which the cases were chosen


def test_each_figure_stands_in_its_row_and_column(tmp_path):
    page = render(tmp_path / "report.html")
    cells = [
        [re.findall(r"[\d.]{4}", re.sub("<[^>]*>", " ", cell))[0] for cell in re.findall("<td.*?</td>", row, re.DOTALL)]
        for row in re.findall("<tr.*?</tr>", page, re.DOTALL)[1:]
    ]
    assert cells == [["97.9", "61.4", "53.3"], ["97.7", "52.2", "50.7"], ["95.2", "83.6", "69.9"]]
    assert re.findall(r'class="mean best">([\d.]+)', page) == ["97.9", "83.6"]
    assert len(re.findall(r'class="difference worse">\u22129\.2', page)) == 1


def test_tiles_of_a_picture_its_mask_and_its_map():
    """The object itself as it is, the background faded; a map over the picture in grey, both enlarged by whole pixels."""
    image, mask = np.random.default_rng(5).integers(0, 256, (13, 11, 3), np.uint8), np.zeros((13, 11), np.float32)
    mask[3:8, 2:7] = 1
    relevance, factor = np.zeros((13, 11), np.float32), 192 // 13
    relevance[10, 9] = 1
    plain, faded, shown = tile(image), tile(image, None, mask, dim=0.75), tile(image, relevance, mask)
    assert plain.shape == faded.shape == shown.shape == (13 * factor, 11 * factor, 3)
    assert np.array_equal(plain[::factor, ::factor], image)
    middle = factor // 2
    assert np.array_equal(shown[10 * factor + middle, 9 * factor + middle], overlay(image, relevance)[10, 9])
    assert np.array_equal(faded[5 * factor + middle, 4 * factor + middle], image[5, 4])
    assert not np.array_equal(faded[11 * factor + middle, 9 * factor + middle], image[11, 9])


def test_each_case_shows_its_own_pictures_in_order(tmp_path):
    reader = Reader(render(tmp_path / "report.html"))
    found = [value for tag, name, value in reader.attributes if tag == "img" and name == "src"][1:]  # less the bar
    shown = [c for kind in CASES.values() for c in kind]
    assert len(found) == 4 * len(shown)
    for i, c in enumerate(shown):
        first = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[4 * i].split(",")[1]))))
        assert np.array_equal(first, c.tiles[0][1])
        assert found[4 * i : 4 * i + 4] == [tile_uri(picture) for _, picture in c.tiles]


def test_names_are_escaped(tmp_path):
    names = [EVIL, "b"]
    values = {m: {EVIL: figure(50.0, 49.0, 51.0)} for m in names}
    page = render(
        tmp_path / "report.html",
        title=EVIL,
        summary=[EVIL],
        setup={EVIL: EVIL},
        results=Results(names, [EVIL], values, EVIL, {EVIL: values}, {m: figure(50.0) for m in names}),
        cases={"corrected": [case(1, label=EVIL)], EVIL: []},
        notes=[EVIL],
        rules={"corrected": EVIL},
        definitions={EVIL: EVIL},
        behaviour=EVIL,
        compared=EVIL,
    )
    assert "<script" not in page
    reader = Reader(page)
    assert reader.texts.count(("h1", EVIL)) == 1 and EVIL in reader.words


@pytest.mark.parametrize("width", [None, 0.0])
def test_a_single_seed_shows_means_without_intervals(tmp_path, width):
    page = render(tmp_path / "report.html", results=results(width=width))
    words = Reader(page).words
    assert "61.4" in words and "+22.2" in words
    assert "61.4–61.4" not in words and "interval," not in words and "nan" not in words.lower()  # noqa: RUF001


def test_no_shares_no_cases_one_model(tmp_path):
    only = Results(["a"], ["x"], {"a": {"x": figure(100.0)}}, "a")
    words = Reader(render(tmp_path / "report.html", results=only, cases={}, notes=[], setup={})).words
    assert "100.0" in words and "better map" not in words and "image by image" not in words


def test_an_existing_file_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(UserError, match=r"report\.html already exists"):
        render(path)
    with pytest.raises(UserError, match=r"report\.html already exists"):
        render_readme_picture(path, results(), CASES)
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_no_file(tmp_path):
    wrong = Panel("s", "a", [("image", np.zeros((5, 7, 9), np.uint8))], [])
    with pytest.raises(TypeError, match="Cannot handle this data type"):
        render(tmp_path / "report.html", cases={"corrected": [case(1), wrong]})
    assert list(tmp_path.iterdir()) == []


def test_the_readme_picture(tmp_path):
    path = render_readme_picture(tmp_path / "picture.png", results(), CASES)
    with Image.open(path) as picture:
        assert picture.width == 1400 and picture.mode == "RGB"
        assert np.asarray(picture).std() > 10
    render_readme_picture(path, results(width=None), {}, overwrite=True)


def test_plots_hold_words_as_text_and_colours_as_variables():
    svg = accuracy_svg(results()) + map_and_behaviour_svg(results(), "background_shuffled")
    for words in ("in distribution", "background shuffled", "accuracy, %", "share of relevance on the foreground, %"):
        assert words in svg
    assert "var(--ink," in svg and "var(--series-1," in svg and "font-family" not in svg
    assert not re.search(r"#[0-9a-f]{6}(?!\))", svg)  # no colour that a dark page could not change


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (figure(83.0, 81.0, 85.0), figure(61.0, 60.0, 62.0), (22.0, "better")),
        (figure(52.0, 51.0, 53.0), figure(61.0, 60.0, 62.0), (-9.0, "worse")),
        (figure(63.0, 61.5, 64.5), figure(61.0, 60.0, 62.0), (2.0, "open")),
        (figure(63.0), figure(61.0), (2.0, "better")),
        (figure(61.0), figure(61.0), (0.0, "open")),
    ],
)
def test_a_difference_is_open_where_the_intervals_overlap(here, there, expected):
    r = Results(["o", "m"], ["s"], {"o": {"s": there}, "m": {"s": here}}, "o")
    assert r.difference("m", "s") == expected and r.difference("o", "s") is None


def test_paired_differences_take_precedence():
    values = {"o": {"s": figure(61.0, 55.0, 67.0)}, "m": {"s": figure(63.0, 57.0, 69.0)}}
    r = Results(["o", "m"], ["s"], values, "o", differences={"m": {"s": figure(2.1, 1.1, 3.1)}})
    assert r.difference("m", "s") == (2.1, "better")
    assert r.difference("m", "s", values) == (2.0, "open")  # a group's table has no pairs


def test_best_goes_by_the_shown_decimal():
    values = {"a": {"s": figure(90.04)}, "b": {"s": figure(89.96)}, "c": {"s": figure(89.94)}}
    assert Results(["a", "b", "c"], ["s"], values, "a").best("s") == {"a", "b"}


def test_wrong_results_are_refused():
    with pytest.raises(ValueError, match=r"b on s"):
        Results(["a", "b"], ["s"], {"a": {"s": figure(1.0)}}, "a")
    with pytest.raises(ValueError, match="not among the models"):
        Results(["a"], ["s"], {"a": {"s": figure(1.0)}}, "b")
    for wrong in (figure(float("nan")), figure(1.0, float("-inf"), 2.0)):
        with pytest.raises(ValueError, match=r"finite figures.* a on s"):
            Results(["a"], ["s"], {"a": {"s": wrong}}, "a")


@pytest.mark.parametrize(("points", "text"), [(2.14, "+2.1"), (-0.26, "\u22120.3"), (-0.04, "0.0"), (0.04, "0.0")])
def test_signed(points, text):
    assert signed(points) == text


def test_markdown_table():
    lines = markdown_table(results()).splitlines()
    assert lines[0] == "| model | in distribution | background shuffled | relevance on foreground |"
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    assert lines[2] == "| original | **97.9** (96.6\u201399.2) | 61.4 (60.1\u201362.7) | 53.3 (52.0\u201354.6) |"
    assert lines[4].startswith(
        "| relevance + background swap | 95.2 (93.9\u201396.5) \u22122.8 | **83.6** (82.3\u201384.9) +22.2"
    )
    assert len(lines) == 2 + len(MODELS)


def test_terminal_table_fits_80_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(results(), title="accuracy"))
    text = console.export_text()
    for figure in ("97.9", "61.4", "52.2", "83.6", "+22.2", "60.1\u201362.7", "53.3", "69.9"):
        assert figure in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_overlay_is_bright_where_the_map_is_high():
    image = np.full((5, 7, 3), 100, np.uint8)
    relevance = np.zeros((5, 7))
    relevance[1, 4] = 1.0
    picture = overlay(image, relevance)
    assert picture.shape == (5, 7, 3) and picture.dtype == np.uint8
    brightness = picture.astype(float).sum(axis=2)
    assert np.unravel_index(brightness.argmax(), brightness.shape) == (1, 4)
    expected = STRENGTH * np.array(colormaps["inferno"](1.0)[:3]) * 255 + (1 - STRENGTH) * 100
    assert np.abs(picture[1, 4] - expected).max() <= 1
    assert np.array_equal(colour(np.array([-3.0, np.nan, 7.0])), colour(np.array([0.0, 0.0, 1.0])))


def test_the_outline_runs_inside_the_mask_and_leaves_the_rest():
    picture = np.full((11, 13, 3), 60, np.uint8)
    mask = np.zeros((11, 13), np.float32)
    mask[2:7, 0:5] = 1.0  # touches the left border, where no line is to run
    large = outlined(picture, mask, size=130)
    assert large.shape == (110, 130, 3)
    white = (large == 255).all(axis=2)
    assert white[20, 5] and white[69, 30] and white[40, 49] and not white[40, 0] and not white[40, 25]
    assert not white[:20].any() and not white[:, 50:].any()
    assert (large[19, 10] < 60).all()  # the dark line outside
    assert (large[45, 25] == 60).all() and (large[100, 100] == 60).all()


def test_wrong_pictures_are_refused():
    with pytest.raises(ValueError, match="of its size"):
        overlay(np.zeros((5, 7, 3), np.uint8), np.zeros((7, 5)))
    with pytest.raises(ValueError, match="probability"):
        Answer("a", "a", 93.0, True)
