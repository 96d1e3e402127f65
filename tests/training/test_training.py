import dataclasses
import json
import math
import os
import signal

import numpy as np
import pytest
import timm
import torch

import relevit
from relevit.errors import UserError
from relevit.explainers import EXPLAINERS
from relevit.training.loop import finetune
from relevit.training.losses import confidence_loss, relevance_loss
from relevit.training.methods import METHODS, Method, Term
from relevit.training.monitor import NonFiniteLossError
from relevit.training.settings import NOT_RECORDED, TrainingSettings
from relevit.training.step import Step
from tiny_run import (
    CLASSES,
    InterruptingSamples,
    TinySamples,
    arguments,
    rows_of,
    same,
    tiny_model,
    weights,
    weights_of,
)


def check_close(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """All weights agree but the biases of keys: their gradient is zero up to rounding, which AdamW blows up."""
    for name, tensor in other.state_dict().items():
        if not name.endswith("qkv.bias"):
            torch.testing.assert_close(one.state_dict()[name], tensor, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_writes_its_run(method, tmp_path):
    model = tiny_model()
    before = weights(model)
    result = finetune(
        model, TinySamples(14), tmp_path / "run", **arguments(method=method, track=["tensorboard"], epochs=2)
    )
    assert result.model is model and not same(weights(model), before)
    assert result.out == tmp_path / "run" and result.checkpoint == tmp_path / "run" / "best"
    assert result.metrics["steps"] == 8 and result.metrics["epochs"] == 2
    for when in ("before", "after"):
        assert set(result.metrics[when]) >= {"loss", "accuracy", "foreground_share", "collapsed"}
    steps = rows_of(result.out / "steps.csv")
    assert [int(row["step"]) for row in steps] == list(range(1, 9))
    assert all(math.isfinite(float(value)) for row in steps for value in row.values())
    assert ("foreground_share" in steps[0]) == METHODS[method].needs_maps
    epochs = rows_of(result.out / "epochs.csv")
    assert [int(row["epoch"]) for row in epochs] == [0, 1, 2]
    assert all(row["validation_loss"] for row in epochs) and all(row["train_loss"] for row in epochs[1:])
    rows = rows_of(result.out / "split.csv")
    assert [row["split"] for row in rows].count("training") == 14
    assert [row["split"] for row in rows].count("validation") == 7
    assert len(list((result.out / "previews").glob("*.png"))) == 2
    assert any((result.out / "tensorboard").iterdir())
    assert json.loads((result.out / "config.json").read_text())["method"] == method
    assert not (result.out / "state").exists()


def test_one_step_against_the_formula(tmp_path):
    """One optimiser step of the paper's method, written out: same batch, Eq. 5, AdamW."""
    samples, model, other = TinySamples(3), tiny_model(drop=0.0), tiny_model(drop=0.0)
    usual = arguments(epochs=1, batch_size=3, resize=1.0, flip=0.0, temperature=0.65, validation=None)
    finetune(model, samples, None, **usual)
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 * 2 - 1 for image in samples.images])
    masks, labels = torch.from_numpy(samples.masks), torch.from_numpy(samples.labels)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-3, weight_decay=1e-4)
    logits, maps = relevit.forward_with_relevance(other.train(), images, labels)
    (0.8 * relevance_loss(maps, masks) + 0.2 * confidence_loss(logits, 0.65)).backward()
    optimizer.step()
    check_close(model, other)


def test_accumulation_equals_a_large_batch():
    """The last batch of an epoch is short: 14 = 8 + 6, and 6 = 4 + 2."""
    models = [tiny_model(drop=0.0) for _ in range(2)]
    usual = arguments(resize=1.0, lr=1e-4, epochs=2)
    finetune(models[0], TinySamples(14), None, **{**usual, "batch_size": 8})
    finetune(models[1], TinySamples(14), None, **{**usual, "batch_size": 4, "accumulation": 2})
    check_close(*models)


def test_learning_rate_schedule(tmp_path):
    result = finetune(tiny_model(), TinySamples(4), tmp_path / "run", **arguments(epochs=5, lr=0.001))
    rates = [float(row["lr"]) for row in rows_of(result.out / "steps.csv")]
    assert rates == pytest.approx([0.001, 0.001, 0.00085, 0.00085, 0.0007225])


def test_best_is_the_lowest_validation_loss_the_later_on_a_tie(tmp_path, monkeypatch):
    losses = iter([9.0, 3.0, 2.0, 2.0, 4.0])
    kept = {}

    def fake(step, *_):
        loss = next(losses)
        kept[loss] = weights(step.model)  # of two equal losses, the later one
        return {"loss": loss, "accuracy": 0.5}

    monkeypatch.setattr(Step, "validate", fake)
    model = tiny_model()
    result = finetune(model, TinySamples(4), tmp_path / "run", **arguments(epochs=4))
    assert result.metrics["best_epoch"] == 3 and result.metrics["after"]["loss"] == 2
    assert same(weights(model), kept[2.0])
    last = timm.create_model(f"local-dir:{tmp_path / 'run' / 'last'}", pretrained=True)
    assert same(weights(last), kept[4.0])


def test_checkpoint_loads_in_timm_and_relevit(tmp_path):
    result = finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments(epochs=1))
    loaded = timm.create_model(f"local-dir:{result.checkpoint}", pretrained=True)
    again, _ = relevit.load(tmp_path / "run")
    assert same(weights(loaded), weights(result.model)) and same(weights(again), weights(result.model))


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = finetune(tiny_model(), TinySamples(6), "run", **arguments())
    os.rename("run", "kept")
    result = finetune(tiny_model(), TinySamples(6), None, **arguments())
    assert result.out is None and result.checkpoint is None
    assert sorted(os.listdir(tmp_path)) == ["kept"]
    assert same(weights(result.model), weights(written.model))
    assert {**result.metrics, "seconds": 0} == {**written.metrics, "seconds": 0}


def test_model_is_left_as_it_was(tmp_path):
    model = tiny_model().eval()
    model.blocks[1].train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    finetune(model, TinySamples(6), None, **arguments(epochs=1))
    assert torch.equal(torch.rand(3), expected)  # the global random state
    assert not model.training and model.blocks[1].training and not model.blocks[0].training
    assert all(p.grad is None for p in model.parameters())


def test_frozen_weights_stay():
    model = tiny_model()
    model.patch_embed.requires_grad_(False)
    before = weights(model)
    finetune(model, TinySamples(6), None, **arguments(epochs=1))
    after = weights(model)
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("patch_embed"))
    assert not torch.equal(after["head.weight"], before["head.weight"])
    with pytest.raises(UserError, match="nothing would be trained"):
        finetune(model.requires_grad_(False), TinySamples(6), None, **arguments())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with few cores
def test_finished_run_returns_at_once(tmp_path, monkeypatch):
    first = finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments())
    monkeypatch.setattr(Step, "learn", None)  # any step would fail
    again = finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments(workers=1, progress=True))
    assert again.metrics == json.loads(json.dumps(first.metrics))
    assert same(weights(again.model), weights(first.model))
    in_place = finetune(first.model, TinySamples(6), tmp_path / "run", **arguments())  # the trained model itself
    assert same(weights(in_place.model), weights(again.model))


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"lr": 0.002}, "lr: 0.001 in the folder, 0.002 now"),
        ({"method": "control"}, "method: 'relevance' in the folder, 'control' now"),
        ({"options": {"lambda_bg": 1.0}}, "lambda_bg: 2.0 in the folder, 1.0 now"),
    ],
)
def test_another_configuration_is_refused(changed, difference, tmp_path):
    finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments(epochs=1))
    before = weights_of(tmp_path / "run")
    with pytest.raises(UserError, match=f"another configuration: {difference}"):
        finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments(epochs=1, **changed))
    for model, samples in ((tiny_model(1), TinySamples(6)), (tiny_model(), TinySamples(6, seed=3))):
        with pytest.raises(UserError, match=r"initial_weights: |samples: "):
            finetune(model, samples, tmp_path / "run", **arguments(epochs=1))
    assert weights_of(tmp_path / "run") == before


def test_ctrl_c_saves_and_the_same_call_goes_on(tmp_path, capsys):
    whole = finetune(tiny_model(), TinySamples(14), tmp_path / "whole", **arguments())
    model, handler = tiny_model(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        finetune(model, InterruptingSamples(14, after=45), tmp_path / "run", **arguments(progress=True))
    assert "Interrupted after step" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / "run" / "state" / "state.pt").exists()
    assert not (tmp_path / "run" / "result.json").exists()
    resumed = finetune(model, TinySamples(14), tmp_path / "run", **arguments())  # the same module, half trained
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")
    assert {**resumed.metrics, "seconds": 0} == {**whole.metrics, "seconds": 0}


def test_non_finite_loss_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    calls = 0

    def loss(outputs, options):
        nonlocal calls
        calls += outputs.logits.requires_grad
        terms = METHODS["relevance"].loss(outputs, options)
        if calls == 7:
            terms["confidence"] = Term(0.2, terms["confidence"].value * math.nan)
        return terms

    monkeypatch.setitem(METHODS, "broken", Method("", loss, needs_maps=True))
    message = "step 7: loss is nan, confidence is nan, with the training samples picture-"
    with pytest.raises(NonFiniteLossError, match=message):
        finetune(tiny_model(), TinySamples(14), tmp_path / "run", **arguments(method="broken"))
    loaded, _ = relevit.load(tmp_path / "run")
    assert all(tensor.isfinite().all() for tensor in loaded.state_dict().values())
    assert len(rows_of(tmp_path / "run" / "steps.csv")) == 6


def test_non_finite_gradient_stops(monkeypatch):
    model = tiny_model()
    model.head.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteLossError, match="step 1: gradient is"):
        finetune(model, TinySamples(6), None, **arguments())
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_collapse_is_told(capsys):
    """A model whose attention has no influence on the logits has a map of zeros for every sample."""
    model = tiny_model()
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight).requires_grad_(False)
    result = finetune(model, TinySamples(6), None, **arguments(epochs=1, progress=True))
    assert len(result.metrics["warnings"]) == 1 and "COLLAPSE: in epoch 1" in result.metrics["warnings"][0]
    assert "COLLAPSE" in capsys.readouterr().err
    assert result.metrics["after"]["collapsed"] == 1


def test_label_free_samples_need_no_labels():
    samples = [sample._replace(label=-1) for sample in TinySamples(6)]
    usual = arguments(epochs=1, validation=None)
    result = finetune(tiny_model(), samples, None, **{**usual, "method": "relevance_label_free"})
    by_target = finetune(tiny_model(), samples, None, **usual, target="predicted")
    assert same(weights(result.model), weights(by_target.model))
    with pytest.raises(UserError, match="label -1 is not one"):
        finetune(tiny_model(), samples, None, **usual)


def test_ignored_pixels_and_second_order_matter():
    results = [
        weights(finetune(tiny_model(), samples, None, **arguments(epochs=1, **changed)).model)
        for samples, changed in (
            (TinySamples(6), {}),
            (TinySamples(6, ignore=True), {}),
            (TinySamples(6), {"second_order": True}),
        )
    ]
    assert not same(results[0], results[1]) and not same(results[0], results[2])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with few cores
def test_workers_change_nothing():
    results = [
        finetune(tiny_model(), TinySamples(10), None, **arguments(epochs=2, workers=workers, method="background_swap"))
        for workers in (0, 2)
    ]
    assert same(*(weights(result.model) for result in results))


def test_max_steps(tmp_path):
    result = finetune(tiny_model(), TinySamples(14), tmp_path / "run", **arguments(max_steps=6))
    assert result.metrics["steps"] == 6 and result.metrics["epochs"] == 2


def test_without_validation_the_last_epoch_counts(tmp_path):
    result = finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments(validation=None))
    assert result.metrics["best_epoch"] == 3 and result.metrics["before"] == {}
    assert len(set(weights_of(tmp_path / "run").values())) == 1
    assert [row["epoch"] for row in rows_of(tmp_path / "run" / "epochs.csv")] == ["1", "2", "3"]


def test_a_convolutional_network_trains_by_labels_alone():
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=CLASSES, pretrained_cfg_overlay={"input_size": (3, 32, 32)})
    result = finetune(network, TinySamples(6), None, **arguments(epochs=1, method="control"))
    assert "foreground_share" not in result.metrics["after"]
    with pytest.raises(UserError, match="needs relevance maps"):
        finetune(network, TinySamples(6), None, **arguments())
    with pytest.raises(UserError, match="gradient_checkpointing is for vision transformers"):
        finetune(network, TinySamples(6), None, **arguments(method="control", gradient_checkpointing=True))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"lr": -1.0}, "lr must be a number of at least 0"),
        ({"lr": math.nan}, "lr must be"),
        ({"seed": -1}, "seed must be"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"options": {"magic": 1.0}}, "no option 'magic'"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"resize": 0.5}, "resize must be at least 1"),
        ({"validation": 3.5}, "validation must be"),
        ({"masks": "somewhere"}, "yields its masks itself"),
        ({"compile": True}, "method 'relevance' looks into the forward pass.*logits alone .control, "),
        ({"compile": True, "method": "rrr"}, "method 'rrr' looks into the forward pass"),
        ({"compile": True, "method": "control", "gradient_checkpointing": True}, "exclude each other"),
        ({"precision": "fp8"}, "precision must be one of float32, bf16, fp16"),
    ],
)
def test_bad_arguments(changed, message, tmp_path):
    with pytest.raises(UserError, match=message):
        finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments(**changed))
    with pytest.raises(UserError, match="must be a folder or a data set"):
        finetune(tiny_model(), 3, tmp_path / "run", **arguments())
    assert not (tmp_path / "run").exists()


def test_validation_every(tmp_path):
    result = finetune(tiny_model(), TinySamples(6), tmp_path / "run", **arguments(epochs=3, validation_every=2))
    rows = rows_of(tmp_path / "run" / "epochs.csv")
    assert [bool(row["validation_loss"]) for row in rows] == [True, False, True, True]
    assert result.metrics["best_epoch"] in (2, 3)


def test_soft_masks_of_any_kind():
    boolean = [sample._replace(mask=sample.mask > 0) for sample in TinySamples(6)]
    bytes_ = [sample._replace(mask=(sample.mask * 255).astype(np.uint8)) for sample in TinySamples(6)]
    results = [
        weights(finetune(tiny_model(), samples, None, **arguments(epochs=1)).model)
        for samples in (TinySamples(6), boolean, bytes_)
    ]
    assert same(results[0], results[1]) and same(results[0], results[2])


def test_explainer_of_the_maps(tmp_path):
    """Each that trains gives weights of its own and is recorded; the others are refused before anything is written."""
    usual = arguments(epochs=1, previews=0, max_steps=1)
    seen = {}
    for name, row in EXPLAINERS.items():
        out = tmp_path / name
        if row.trains:
            result = finetune(tiny_model(drop=0.0), TinySamples(4), out, explainer=name, **usual)
            config = json.loads((out / "config.json").read_text())
            assert config["explainer"] == name and config["second_order"] == row.needs_second_order
            seen[name] = weights(result.model)
        else:
            with pytest.raises(UserError, match=f"explainer '{name}' gives maps without a gradient.*choose gae"):
                finetune(tiny_model(), TinySamples(4), out, explainer=name, **usual)
            assert not out.exists()
    assert len(seen) > 1
    assert all(not same(seen["gae"], other) for name, other in seen.items() if name != "gae")
    with pytest.raises(UserError, match="unknown explainer 'magic': choose one of gae"):
        finetune(tiny_model(), TinySamples(4), None, explainer="magic", **usual)
    with pytest.raises(UserError, match="trainable: 'all' in the folder, 'attention' now"):
        finetune(tiny_model(drop=0.0), TinySamples(4), tmp_path / "gae", **usual, trainable="attention")
    with pytest.raises(UserError, match="explainer: 'gae' in the folder"):
        finetune(tiny_model(drop=0.0), TinySamples(4), tmp_path / "gae", explainer="rollout", **usual)


def test_every_setting_is_recorded_but_a_short_list(tmp_path):
    """A new setting that nobody thinks of is compared; what is not recorded is a setting, too."""
    names = {field.name for field in dataclasses.fields(TrainingSettings)}
    assert names >= NOT_RECORDED and TrainingSettings().recorded().keys() == names - NOT_RECORDED
    finetune(tiny_model(), TinySamples(4), tmp_path / "run", **arguments(epochs=1, previews=0))
    assert json.loads((tmp_path / "run" / "config.json").read_text()).keys() >= names - NOT_RECORDED
    with pytest.raises(TypeError, match="learning_rate"):
        finetune(tiny_model(), TinySamples(4), None, learning_rate=1e-3)
