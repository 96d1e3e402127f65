"""Weight interpolation: elementwise, its ends bit for bit, the choice within a budget, and the command on small data."""

import copy
import csv
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import relevit
from relevit.cli import main
from relevit.evaluation.accuracy.recall import Accuracy
from relevit.evaluation.interpolation import Curve, Point, choose, interpolation_curve
from relevit.models.interpolation import interpolate

ALPHAS = [0.0, 0.37, 1.0]


def model(seed, name="vit_tiny_patch16_224", **arguments):
    torch.manual_seed(seed)
    settings = {"img_size": 32, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 3}
    return timm.create_model(name, **(settings | arguments)).eval()


def test_elementwise():
    """Each weight is (1 - alpha) a + alpha b; the two models are as before."""
    one, two = model(1), model(2)
    before = [copy.deepcopy(each.state_dict()) for each in (one, two)]
    for alpha in (0.1, 0.37, 0.5, 0.93):
        mixed = interpolate(one, two, alpha).state_dict()
        for name, value in mixed.items():
            a, b = before[0][name].double().numpy(), before[1][name].double().numpy()
            np.testing.assert_allclose(
                value.numpy(), ((1 - alpha) * a + alpha * b).astype(np.float32), rtol=0, atol=1e-7
            )
            assert value.dtype == torch.float32
    assert not torch.equal(before[0]["head.weight"], before[1]["head.weight"])
    for each, state in zip((one, two), before, strict=True):
        assert all(torch.equal(state[name], value) for name, value in each.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_ends_and_what_is_equal(dtype):
    """Bit for bit: the ends are the models, a weight that is equal in both stays it, and nothing shares memory."""
    one, two = model(1).to(dtype), model(2).to(dtype)
    with torch.no_grad():
        two.head.weight.copy_(one.head.weight)
        one.head.bias.fill_(-0.0)
        one.norm.bias[0] = float("inf")  # a difference from it is no number
    for alpha, end in ((0, one), (1, two)):
        mixed = interpolate(one, two, alpha)
        for name, value in mixed.state_dict().items():
            whole = end.state_dict()[name]
            assert value.numpy(force=True).tobytes() == whole.numpy().tobytes() if dtype != torch.bfloat16 else True
            assert torch.equal(value, whole) and value.data_ptr() != whole.data_ptr()
    middle = interpolate(one, two, 0.3)
    assert torch.equal(middle.head.weight, one.head.weight) and middle.head.weight.dtype == dtype
    images = torch.randn(2, 3, 32, 32, dtype=dtype)
    assert torch.equal(interpolate(one, two, 1.0)(images), two(images))


def test_whole_numbers_are_kept():
    one, two = model(1), model(2)
    for each, count in ((one, 4), (two, 4)):
        each.register_buffer("count", torch.tensor(count))
    assert interpolate(one, two, 0.5).count == 4
    two.count += 1
    with pytest.raises(relevit.UserError, match="count holds other whole numbers"):
        interpolate(one, two, 0.5)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: model(2, num_classes=5), r"head.bias is \(3,\) and \(5,\); head.weight is .*with the same classes"),
        (lambda: model(2, depth=3), "blocks.2.attn.proj.bias is in one of them alone; .* and 7 more differ"),
        (lambda: model(2).double(), "blocks.0.attn.proj.bias is torch.float32 and torch.float64"),
        (
            lambda: model(2, "deit_tiny_patch16_224"),
            "two architectures, vit_tiny_patch16_224 and deit_tiny_patch16_224",
        ),
    ],
)
def test_models_that_cannot_be_mixed(other, message):
    with pytest.raises(relevit.UserError, match=message):
        interpolate(model(1), other(), 0.5)


@pytest.mark.parametrize("alpha", [-0.1, 1.01, float("nan"), True])
def test_alpha_outside(alpha):
    with pytest.raises(relevit.UserError, match="alpha must be between 0"):
        interpolate(model(1), model(2), alpha)


def accuracy(hits, count=40):
    found = np.arange(count) < hits
    return Accuracy(found, found, np.full(count, "a"))


def point(alpha, near, *far):
    return Point(alpha, {"near": accuracy(near)}, {f"far {i}": accuracy(each) for i, each in enumerate(far)})


def test_choice():
    """The highest mean on the shifted sets among those within the budget, ends included; the first on a tie."""
    points = [point(0, 36, 10, 10), point(0.2, 35, 20, 6), point(0.5, 34, 8, 18), point(1, 30, 40, 40)]
    assert [choose(points, budget) for budget in (0, 2.4, 2.5, 5, 14.9, 15, 100)] == [0, 0, 1, 1, 1, 3, 3]
    assert choose([point(0, 36, 20), point(0.5, 38, 10)], 1) == 0
    assert choose([point(0, 36, 20), point(0.5, 38, 21)], 0) == 1
    curve = Curve(points, 5.0, 1)
    assert [one["within_budget"] for one in curve.to_dict()["points"]] == [True, True, True, False]
    assert curve.best.shifted_mean == pytest.approx(100 * (20 + 6) / 80)


def pictures(seed, count=12):
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), int(rng.integers(3))) for _ in range(count)]


def test_curve():
    """Every point's accuracy is that of the mixture itself, measured by hand."""
    one, two = model(1), model(2)
    near, far = pictures(1, 23), pictures(2, 29)

    def view(image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 64 - 2

    curve = interpolation_curve(one, two, view, {"n": near}, {"n/f": far}, alphas=[1.0, 0.37], budget=100.0)
    assert [p.alpha for p in curve.points] == ALPHAS
    seen = set()
    for p in curve.points:
        mixed = interpolate(one, two, p.alpha)
        for name, sets, data in (("n", p.in_distribution, near), ("n/f", p.shifted, far)):
            assert list(sets) == [name]
            with torch.no_grad():
                hits = [int(mixed(view(image)[None]).argmax()) == label for image, label in data]
            assert sets[name].hit1.tolist() == hits
            seen.add(tuple(hits))
    assert len(seen) > 3  # the mixtures do not answer alike
    assert curve.best.shifted_mean == max(p.shifted_mean for p in curve.points)
    with pytest.raises(relevit.UserError, match="far is among both"):
        interpolation_curve(one, two, view, {"far": near}, {"far": far}, alphas=[1.0], budget=1.0)
    with pytest.raises(relevit.UserError, match="at least one set in distribution"):
        interpolation_curve(one, two, view, {}, {"far": far}, alphas=[1.0], budget=1.0)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two checkpoints, and two folders of images in class folders."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("before", 1), ("after", 2)):
        relevit.save_checkpoint(tmp_path / name, model(seed))
    for name, seed in (("near", 3), ("far", 4)):
        for i, (image, label) in enumerate(pictures(seed)):
            path = tmp_path / name / str(label) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path


def test_command(files, capsys):
    """The mixture that is saved is the one that the table names, and its figures are those of relevit.evaluate."""
    arguments = "interpolate before after --data near --shifted far --alphas 0 0.37 1 --budget 100 --out out".split()
    main(arguments)
    printed = capsys.readouterr().out
    content = json.loads((files / "out/interpolation.json").read_text())
    alpha = content["chosen_alpha"]
    assert f"The mixture at {alpha:g} has" in printed and "chosen" in printed
    best, view = relevit.load("out/best")
    wanted = interpolate(model(1), model(2), alpha)
    assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in best.state_dict().items())
    chosen = next(each for each in content["points"] if each["alpha"] == alpha)
    report = relevit.evaluate((best, view), {"near": "near", "far": "far"})
    assert chosen["shifted"]["far"]["r1"] == pytest.approx(report.accuracies["far"]["model"].r1, abs=1e-4)
    assert chosen["in_distribution"]["near"]["r1"] == pytest.approx(report.accuracies["near"]["model"].r1, abs=1e-4)
    assert chosen["shifted_mean"] == max(each["shifted_mean"] for each in content["points"])
    with open(files / "out/curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["alpha"], row["set"]) for row in rows] == [(str(a), s) for a in ALPHAS for s in ("near", "far")]
    assert {row["alpha"] for row in rows if row["chosen"] == "1"} == {str(alpha)}
    with Image.open(files / "out/curve.png") as picture:
        assert picture.size[0] > 500
    page = (files / "out/report.html").read_text()
    assert "(chosen)" in page and "<svg" in page and "http" not in page.replace("http://www.w3.org", "")
    assert json.loads((files / "out/best/config.json").read_text())["relevit"]["interpolation"]["alpha"] == alpha
    with pytest.raises(SystemExit):
        main(arguments)
    assert "interpolation.json is there already" in capsys.readouterr().err


def test_command_goes_on(files, capsys, monkeypatch):
    """Stopped before its end, the same command goes on with the rows that are there."""
    from relevit.evaluation import interpolation as module

    arguments = "interpolate before after --data near --shifted far --alphas 0 1 --out out".split()

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.Curve, "save", stopped)
        with pytest.raises(SystemExit):
            main(arguments)
    assert (files / "out/report.html").exists() and not (files / "out/interpolation.json").exists()
    rows = sorted((files / "out/evaluation").rglob("*.parquet"))
    written = [path.stat().st_mtime_ns for path in rows]
    main(arguments)
    assert (files / "out/interpolation.json").exists()
    assert rows and [path.stat().st_mtime_ns for path in rows] == written


def test_folder_of_something_else(files, capsys):
    """A run's folder, whose best checkpoint would be lost."""
    relevit.save_checkpoint(files / "run/best", model(5))
    with pytest.raises(SystemExit):
        main("interpolate before after --data near --shifted far --out run".split())
    assert "run is not empty and was not begun by relevit interpolate" in capsys.readouterr().err
    assert torch.equal(relevit.load("run")[0].head.weight, model(5).head.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data near --shifted far --alphas 0 1.5", "--alphas must be from 0 to 1, not 1.5"),
        ("--data near --shifted far --alphas 0.5 0.5", "alphas must differ"),
        ("--data near --shifted far --budget -1", "--budget must be at least 0, not -1"),
        ("--data near --shifted near", "near is among both"),
        ("--data near near --shifted far", "two sets called near"),
        (
            "--data builtin/nothing --shifted far",
            "builtin/nothing is no set of the built-in benchmark: builtin/NAME, with NAME one of in_distribution",
        ),
        ("--data nowhere --shifted far", "nowhere"),
    ],
)
def test_user_errors(files, arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(f"interpolate before after {arguments} --out out".split())
    assert message in capsys.readouterr().err
    assert not (files / "out").exists()


def test_other_preparation(files, capsys):
    """Models that want their images prepared in two ways have no line that one preparation fits."""
    relevit.save_checkpoint(files / "other", model(3), data_config={"mean": (0.1, 0.2, 0.3)})
    with pytest.raises(SystemExit):
        main("interpolate before other --data near --shifted far --out out".split())
    assert "differently prepared images (mean" in capsys.readouterr().err


@pytest.mark.slow
def test_builtin_sets():
    from relevit.api.interpolate import _sets
    from relevit.data.builtin.digits import TEST_SETS

    near, far = _sets(["builtin"], "standard", shifted=False), _sets(["builtin"], "standard", shifted=True)
    assert list(near) == ["builtin/in_distribution"] and list(far) == [f"builtin/{name}" for name in TEST_SETS[1:]]
    assert list(_sets(["builtin/size"], "standard", shifted=True)) == ["builtin/size"]
