"""A model at work is put back as it was, on exceptions too."""

import pytest
import torch
from torch import nn

from relevit.models.working import device_of, learning, working


def mixed() -> nn.Module:
    """Modes that a plain `train()` would not restore."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("context", [working, learning])
def test_modes_are_as_before(context, fails):
    model = mixed()
    before = modes(model)
    try:
        with context(model):
            model.train(context is working)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert modes(model) == before == [True, True, False, True, True]


def test_working_evaluates_on_the_device_and_goes_back():
    model = mixed()
    with working(model, "meta") as device:
        assert device == device_of(model) == torch.device("meta") and not any(modes(model))
        raised = model
        model.to_empty(device="cpu")  # weights of the meta device cannot be copied back
    assert device_of(raised) == torch.device("cpu")
    with working(model) as device:
        assert device == torch.device("cpu")


def test_learning_leaves_no_gradients_and_the_random_state():
    model = mixed()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with learning(model):
        torch.manual_seed(6)
        model(torch.rand(1, 2)).sum().backward()
        assert model[0].weight.grad is not None
    assert torch.equal(torch.rand(3), expected) and model[0].weight.grad is None


def test_the_device_of_a_module_without_weights_is_the_processor():
    assert device_of(nn.Identity()) == torch.device("cpu")
