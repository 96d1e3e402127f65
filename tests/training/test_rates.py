"""lr="auto": trials, the rule, what is kept of them, and going on after an interruption. The rule itself is tested in
test_experiments.py."""

import json

import pytest
from torch import nn

from relevit.errors import UserError
from relevit.training import learning_rate as rates
from relevit.training.learning_rate import default_rates, table
from relevit.training.loop import finetune
from relevit.training.methods import METHODS
from relevit.training.terms import Term
from tiny_run import InterruptingSamples, TinySamples, arguments, same, tiny_model, weights_of

GRID = [1e-5, 2e-3, 1e-2]


def auto(**changed):
    return arguments(lr="auto", rates=GRID, epochs=1, previews=0, **changed)


def test_the_run_is_the_trial_that_the_rule_chooses(tmp_path, monkeypatch):
    asked = {}
    rule = rates.choose_rate

    def recorded(original, trials):
        asked.update(original=original, trials=trials)
        assert rule(original, trials) in GRID
        return 2e-3

    monkeypatch.setattr(rates, "choose_rate", recorded)
    model = tiny_model()
    result = finetune(model, TinySamples(14), tmp_path / "run", **auto())
    plain = finetune(tiny_model(), TinySamples(14), tmp_path / "plain", **arguments(lr=2e-3, epochs=1, previews=0))
    assert result.model is model and same(model, plain.model)
    assert result.checkpoint == tmp_path / "run" / "best" and weights_of(tmp_path / "run") == weights_of(
        tmp_path / "plain"
    )
    own = {"lr", "rates", "trials"}
    assert {k: v for k, v in result.metrics.items() if k not in own} == {
        **json.loads(json.dumps(plain.metrics)),
        "seconds": result.metrics["seconds"],
    }
    # what the rule was shown: percent and Eq. 4 of the validation samples, of every rate's own run
    assert asked["original"]["accuracy"] == 100 * plain.metrics["before"]["accuracy"]
    assert asked["original"]["classification_loss"] == plain.metrics["before"]["confidence"]
    assert list(asked["trials"]) == GRID
    for rate in GRID:
        measured = json.loads((tmp_path / "run" / "trials" / f"{rate:g}" / "result.json").read_text())["after"]
        assert asked["trials"][rate]["accuracy"] == 100 * measured["accuracy"]
        assert asked["trials"][rate]["classification_loss"] == measured["confidence"]
    assert result.metrics["lr"] == 2e-3 and result.metrics["rates"] == GRID
    assert [(row["lr"], row["chosen"]) for row in result.metrics["trials"]] == [
        (1e-5, False),
        (2e-3, True),
        (1e-2, False),
    ]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["lr"] == 2e-3

    # again: nothing is trained, whether the model is new or the trained one; other rates are refused
    monkeypatch.setattr(rates, "choose_rate", None)
    for given in (tiny_model(), model):
        again = finetune(given, TinySamples(14), tmp_path / "run", **auto())
        assert again.metrics == result.metrics and same(again.model, plain.model)
    with pytest.raises(UserError, match="another configuration: rates"):
        finetune(tiny_model(), TinySamples(14), tmp_path / "run", **{**auto(), "rates": [1e-5, 1e-4]})
    with pytest.raises(UserError, match="another configuration: batch_size"):
        finetune(tiny_model(), TinySamples(14), tmp_path / "run", **{**auto(), "batch_size": 2})
    with pytest.raises(UserError, match="was not begun by relevit finetune --lr auto"):
        finetune(tiny_model(), TinySamples(14), tmp_path / "plain", **auto())

    # without a folder: the same weights
    monkeypatch.setattr(rates, "choose_rate", lambda original, trials: 2e-3)
    kept = finetune(tiny_model(), TinySamples(14), None, **auto())
    assert same(kept.model, plain.model) and kept.out is None
    assert kept.metrics["trials"] == result.metrics["trials"]


def test_interrupted_in_the_second_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(rates, "choose_rate", lambda original, trials: 2e-3)
    finetune(tiny_model(), TinySamples(14), tmp_path / "whole", **auto())
    model = tiny_model()
    with pytest.raises(KeyboardInterrupt):
        finetune(model, InterruptingSamples(14, after=65), tmp_path / "run", **auto())
    assert (tmp_path / "run" / "trials" / "1e-05" / "result.json").exists()
    assert not (tmp_path / "run" / "trials" / "0.01").exists() and not (tmp_path / "run" / "result.json").exists()
    assert same(model, tiny_model())
    finetune(model, TinySamples(14), tmp_path / "run", **auto())
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")


def test_a_trial_that_becomes_infinite_is_told(monkeypatch):
    def loss(outputs, options):
        terms = METHODS["control"].loss(outputs, options)
        value = terms["label"].value
        wild = outputs.logits.requires_grad and outputs.logits.detach().abs().max() > 2
        return {"label": Term(1.0, value * float("nan") if wild else value)}

    monkeypatch.setitem(METHODS, "fragile", METHODS["control"]._replace(loss=loss))
    usual = {**auto(method="fragile"), "rates": [1e-5, 1.0]}
    result = finetune(tiny_model(), TinySamples(14), None, **usual)
    assert result.metrics["lr"] == 1e-5
    low, high = result.metrics["trials"]
    assert low["chosen"] and "failed" not in low and "loss is nan" in high["failed"] and not high["chosen"]
    with pytest.raises(UserError, match="infinite at every rate"):
        finetune(tiny_model(), TinySamples(14), None, **{**usual, "rates": [1.0]})


def test_table():
    original = {"accuracy": 90.0, "classification_loss": 0.5}
    trials = {
        3.0: {"accuracy": 87.5, "classification_loss": 0.5},
        1.0: {"accuracy": 87.4, "classification_loss": 0.4},
        2.0: {"accuracy": 91.0, "classification_loss": 0.6},
    }
    rows = table(original, trials, 3.0, {9.0: "it broke"})
    assert [row["lr"] for row in rows] == [1.0, 2.0, 3.0, 9.0]
    assert [row.get("keeps_accuracy") for row in rows] == [False, True, True, None]
    assert [row.get("loss_does_not_rise") for row in rows] == [True, False, True, None]
    assert [row["chosen"] for row in rows] == [False, False, True, False]
    assert rows[0]["accuracy_change"] == pytest.approx(-2.6) and rows[3]["failed"] == "it broke"
    assert rows[1]["classification_loss_change"] == pytest.approx(0.1)


def test_default_grids():
    small, large = nn.Linear(10, 10), nn.Linear(3000, 5001)  # 15,008,001
    assert default_rates(small) == (1e-5, 3e-5, 1e-4, 3e-4) == default_rates(large, "lora:4")
    assert default_rates(large) == default_rates(large, "attention")
    assert min(default_rates(large)) == 5e-7 and max(default_rates(large)) == 5e-6  # the paper's


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"validation": None}, "there are none: give validation, or a rate"),
        ({"rates": [1e-3, 0.0]}, "rates must be numbers above 0"),
        ({"rates": [-1.0]}, "rates must be numbers above 0"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"lr": "automatic"}, "lr must be a number"),
    ],
)
def test_bad_arguments(changed, message, tmp_path):
    with pytest.raises(UserError, match=message):
        finetune(tiny_model(), TinySamples(6), tmp_path / "run", **{**auto(), **changed})
    assert not (tmp_path / "run").exists()


def test_validation_samples_need_labels(tmp_path):
    unlabelled = [sample._replace(label=-1) for sample in TinySamples(3)]
    usual = {**auto(method="relevance_label_free"), "validation": unlabelled}
    with pytest.raises(UserError, match=r"3 have none \(picture-0, \.\.\.\)"):
        finetune(tiny_model(), TinySamples(6), tmp_path / "run", **usual)
