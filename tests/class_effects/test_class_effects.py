"""Per-class effects: by hand, against independent derivations, and the page and command that show them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from predicted import predicted
from relevit.class_effects.figures import RATE, class_effects
from relevit.class_effects.page import changes_svg
from relevit.cli import main
from relevit.data.builtin.sets import builtin_set
from relevit.errors import UserError
from relevit.report.words import number

GROUPS = list("aaaabbbbbbbcc")
BEFORE = [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0]
AFTER = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0]


def test_by_hand() -> None:
    found = class_effects(predicted(BEFORE, GROUPS), predicted(AFTER, GROUPS))
    assert [each.name for each in found.classes] == ["a", "c", "b"]  # the most helped first, the most harmed last
    a, c, b = found.classes
    assert (a.before, a.after, a.change.value, a.images) == (25, 100, 75, 4)
    assert (a.corrected, a.ruined, c.corrected) == ([0, 1, 2], [], [])
    assert (b.corrected, b.ruined) == ([10], [4, 5, 6, 7, 8, 9]) and b.change.value == pytest.approx(-500 / 7)
    assert (a.p, c.p) == (0.25, 1.0) and b.p == pytest.approx(2 * binom.cdf(1, 7, 0.5))
    # Benjamini and Hochberg by hand: p sorted 0.125, 0.25, 1 times 3, 3/2, 1, made monotone from the right
    assert (b.adjusted, a.adjusted, c.adjusted) == pytest.approx((0.375, 0.375, 1.0))
    assert (found.count(1), found.count(0), found.count(-1)) == (1, 1, 1)
    assert found.count(-1, settled=True) == 0
    assert found.spread == pytest.approx(np.std([75, 0, -500 / 7])) and found.change.value == pytest.approx(
        100 * (3 - 5) / 13
    )
    assert [each.name for each in found.most_helped(5)] == ["a"] and [each.name for each in found.most_harmed(5)] == [
        "b"
    ]


def test_the_second_model_is_set_against_the_first() -> None:
    there = class_effects(predicted(BEFORE, GROUPS), predicted(AFTER, GROUPS))
    back = class_effects(predicted(AFTER, GROUPS), predicted(BEFORE, GROUPS))
    assert [each.name for each in back.classes] == ["b", "c", "a"]
    assert back.classes[0].change.value == pytest.approx(-there.classes[2].change.value)
    assert back.classes[0].p == there.classes[2].p


def test_settled_only_over_all_classes() -> None:
    """A p of 0.031 is settled alone, and not as one of eleven."""
    groups, before, after = ["a"] * 6, [0] * 6, [1] * 6
    alone = class_effects(predicted(before, groups), predicted(after, groups)).classes[0]
    assert alone.p == pytest.approx(2 / 64) and alone.settled and alone.adjusted <= RATE
    rest = [str(number) for number in range(10) for _ in range(6)]
    among = class_effects(predicted(before + [1] * 60, groups + rest), predicted(after + [1] * 60, groups + rest))
    first = next(each for each in among.classes if each.name == "a")
    assert first.p == alone.p and first.adjusted == pytest.approx(11 * 2 / 64) and not first.settled


def test_spread_by_chance() -> None:
    """Classes that change alike have a spread as by chance, for which there is a formula; classes that do not, a larger one."""
    rng = np.random.default_rng(3)
    groups = [f"{number:02}" for number in range(37) for _ in range(23)]
    before = rng.random(851) < 0.6
    alike = class_effects(predicted(before, groups), predicted(before ^ (rng.random(851) < 0.3), groups))
    changes = np.array([each.change.value for each in alike.classes])
    assert alike.spread == pytest.approx(changes.std()) and alike.spread_p > 0.05
    shared = alike.chance
    assert shared.shape == (500, 37)
    np.testing.assert_allclose(shared.mean(axis=1), alike.change.value)  # every image is in one class of each share
    flips = [len(each.corrected) + len(each.ruined) for each in alike.classes]
    variance = sum(flips) / 851 - (alike.change.value / 100) ** 2
    assert alike.by_chance == pytest.approx(100 * np.sqrt(variance / 23 * (36 / 37)), rel=0.03)
    helped = np.array([int(name) < 18 for name in groups])
    apart = class_effects(predicted(~helped, groups), predicted(helped, groups))
    assert apart.spread == pytest.approx(200 * np.sqrt(18 / 37 * 19 / 37)) and apart.spread_p == pytest.approx(1 / 501)


def test_objects_count_once() -> None:
    before, after = [0, 0, 0, 1, 1], [1, 1, 0, 1, 0]
    found = class_effects(predicted(before, ["a"] * 5, list("xxyyz")), predicted(after, ["a"] * 5, list("xxyyz")))
    one = found.classes[0]  # x: +1, y: 0, z: -1
    assert one.change.value == pytest.approx(0) and one.change.count == 3 and one.images == 5 and one.p == 1
    assert one.before == pytest.approx(100 * (0 + 0.5 + 1) / 3)


def test_other_images_are_refused() -> None:
    one, other = predicted([1, 0], ["a", "a"]), predicted([1, 0], ["a", "a"])
    other.keys[0] = "else.png"
    with pytest.raises(UserError, match="not of the same images"):
        class_effects(one, other)
    with pytest.raises(UserError, match="no predictions"):
        class_effects(predicted([], []), predicted([], []))


def test_the_histogram_has_a_bar_for_every_class() -> None:
    svg = changes_svg([-10.0, 0.0, 10.0, 10.0], np.zeros((3, 4)))
    assert svg.startswith("<svg") and "aria-label" in svg and "http" not in svg


@pytest.mark.slow
def test_the_command_on_the_built_in_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model against itself: nothing changes; the page holds the figures; rows of --results are used again."""
    third = builtin_set("background_shuffled").subset(range(800))
    monkeypatch.setattr("relevit.data.open.builtin_sets", lambda spec: {spec: lambda: third})
    out, results = tmp_path / "effects", tmp_path / "results"
    call = ["effects", "one=builtin", "two=builtin", "--data", "builtin/background_shuffled", "--results", str(results)]
    call += ["--each", "1", "--classes", "1"]
    main([*call, "--out", str(out)])
    capsys.readouterr()
    content = json.loads((out / "effects.json").read_text())
    html = (out / "effects.html").read_text()
    assert content["effects"]["change"]["points"] == 0 and content["effects"]["unchanged"] == 20
    assert content["images"] == {"all": 800, "corrected": 0, "unchanged": 800, "ruined": 0}
    for sentence in content["summary"]:
        assert sentence.replace("'", "&#39;") in html
    for each in content["effects"]["classes"]:
        assert f">{number(each['before'])}<" in html and f">{each['class']}<" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html) and html.count("There was none.") == 4
    rows = list((results / "predictions").rglob("part-*"))
    assert rows and {path.parent.name for path in rows} == {"one", "two"}
    with pytest.raises(SystemExit):
        main([*call, "--out", str(out)])
    assert "nothing is overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["one=builtin", "--data", "builtin/size"], "effects compares two models"),
        (["one=builtin", "two=builtin", "--data", "nowhere"], "there is no nowhere: give a folder"),
        (
            ["one=builtin", "two=builtin", "--data", "two.yaml"],
            "holds several sets: give --benchmark, one of near, far",
        ),
        (["one=builtin", "two=builtin", "--data", "builtin/sizes"], "no set of the built-in benchmark"),
        (["one=builtin", "two=builtin", "--data", "builtin", "--benchmark", "x"], "there is no benchmark x"),
        (["builtin", "builtin", "--data", "builtin"], "two models are called builtin"),
        (["one=builtin", "two=builtin", "--data", "builtin", "--each", "-1"], "each must be at least 0"),
    ],
)
def test_faults_are_one_line(
    tmp_path: Path, arguments: list[str], part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("near", "far"):
        (tmp_path / name / "3").mkdir(parents=True)
        (tmp_path / name / "3" / "picture.png").touch()
    (tmp_path / "two.yaml").write_text("near: near\nfar: far\n")
    with pytest.raises(SystemExit) as stop:
        main(["effects", *arguments])
    text = capsys.readouterr().err
    assert stop.value.code == 2 and part in text and len(text.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
