"""Gradient checkpointing, compiled models, clipped gradients and mixed precision: what big models need, and what stays the same."""

import pytest
import torch
from accelerate.state import AcceleratorState

from relevit.models.recomputation import recomputing
from relevit.training.loop import finetune
from tiny_run import TinySamples, arguments, rows_of, same, tiny_model, weights


def check_equal(*models):
    """To 1e-10, every weight."""
    one, other = (model.state_dict() for model in models)
    torch.testing.assert_close(dict(other), dict(one), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "changed",
    [{}, {"explainer": "attn_lrp"}, {"method": "gradmask"}, {"method": "distillation"}, {"trainable": "lora:2"}],
    ids=lambda changed: "".join(changed.values()) or "relevance",
)
def test_gradient_checkpointing_gives_the_same_weights(changed):
    """To 1e-10 in float64, with dropout; and the blocks are as before."""
    models = [tiny_model().double() for _ in range(2)]
    for model, checkpointing in zip(models, (False, True), strict=True):
        options = arguments(epochs=1, gradient_checkpointing=checkpointing, **changed)
        result = finetune(model, TinySamples(14), None, **options)
        assert result.metrics["steps"] == 4 and all("forward" not in vars(module) for module in model.modules())
    check_equal(*models)
    assert not same(models[0], tiny_model().double())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["control", "distillation"])
def test_compiled_gives_the_same_weights(method):
    """To 1e-10 in float64; the model is not compiled afterwards."""
    models = [tiny_model(drop=0.0).double() for _ in range(2)]
    for model, compiled in zip(models, (False, True), strict=True):
        finetune(model, TinySamples(8), None, **arguments(epochs=2, method=method, compile=compiled))
        assert model._compiled_call_impl is None
    check_equal(*models)


def test_blocks_keep_their_inputs_alone():
    """Each of the two blocks runs once more in a step's plain backward pass, and is called by what was in its place before."""
    model, images = tiny_model().train(), torch.randn(2, 3, 16, 16)
    calls: list[int] = []
    plain = model.blocks[0].forward
    model.blocks[0].forward = lambda *given: calls.append(0) or plain(*given)
    own = model.blocks[0].forward
    with recomputing(list(model.blocks)):
        model(images).sum().backward()
    assert calls == [0, 0] and model.blocks[0].forward is own and "forward" not in vars(model.blocks[1])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_clipped_gradients(accumulation, tmp_path, monkeypatch):
    """The optimiser sees gradients of at most that norm, in their own direction; the log has the norm before."""
    seen: dict[float | None, list[torch.Tensor]] = {}
    for most in (None, 0.01):
        gradients = seen.setdefault(most, [])

        def step(optimizer, closure=None, gradients=gradients):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            gradients.append(torch.cat([p.grad.flatten() for p in parameters]))

        monkeypatch.setattr(torch.optim.AdamW, "step", step)
        options = arguments(epochs=1, accumulation=accumulation, max_grad_norm=most)
        finetune(tiny_model(), TinySamples(8), tmp_path / str(most), **options)
    for plain, clipped, row in zip(seen[None], seen[0.01], rows_of(tmp_path / "0.01" / "steps.csv"), strict=True):
        assert plain.norm() > 0.01 and float(row["gradient_norm"]) == pytest.approx(plain.norm().item(), rel=1e-4)
        torch.testing.assert_close(clipped, plain * 0.01 / plain.norm(), rtol=1e-3, atol=1e-9)


def test_mixed_precision_and_back():
    half = finetune(tiny_model(), TinySamples(6), None, **arguments(epochs=1, precision="bf16"))
    full = finetune(tiny_model(), TinySamples(6), None, **arguments(epochs=1))
    assert AcceleratorState().mixed_precision == "no"
    assert not same(weights(half.model), weights(full.model))
    assert half.metrics["after"]["loss"] == pytest.approx(full.metrics["after"]["loss"], rel=0.1)
