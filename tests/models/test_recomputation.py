"""Gradient checkpointing: blocks that are computed again give the same maps and gradients as without, in float64."""

import threading
from contextlib import contextmanager
from functools import partial

import pytest
import torch
import torch.utils.checkpoint
from timm.layers import set_reentrant_ckpt
from torch import nn

import relevit
from families import build
from foreign_models import images_for, transformers_model, wrapped_model
from relevit.explainers import EXPLAINERS
from relevit.models import families, recomputation
from relevit.models.recomputation import recomputed_within
from relevit.training.input_gradients import InputGradient, label_logit, logits_and_input_gradient

TARGET = torch.tensor([1, 0, 3])


@pytest.fixture(params=[False, True], ids=["not_reentrant", "reentrant"])
def reentrant(request):
    """timm's choice for models with `set_grad_checkpointing`."""
    set_reentrant_ckpt(request.param)
    yield request.param
    set_reentrant_ckpt(False)


def results(model, outputs, *arguments, **options):
    """Two outputs, and the gradients of all weights by a loss of both, with the same dropout each time."""
    torch.manual_seed(0)
    model.zero_grad()
    outputs = outputs(model, *arguments, **options)
    if all(output.requires_grad for output in outputs):
        sum(output.square().sum() for output in outputs).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return *(output.detach() for output in outputs), gradients


def check_same(model, *arguments, **options):
    """With and without checkpointing of each block."""
    recomputed = 0

    def count(*_):
        nonlocal recomputed
        recomputed += 1

    handle = model.blocks[1].register_forward_pre_hook(count)
    plain = results(model, *arguments, **options)
    once = recomputed
    model.set_grad_checkpointing(True)
    again = results(model, *arguments, **options)
    handle.remove()
    assert recomputed > 2 * once  # it is in effect
    torch.testing.assert_close(again, plain, rtol=0, atol=1e-10)
    return plain


@pytest.mark.parametrize("family", ["vit", "siglip", "dinov3", "beit_shared_bias", "eva02_separate_qkv"])
@pytest.mark.parametrize("second_order", [False, True])
def test_maps_and_gradients_are_the_same(family, second_order, reentrant):
    model, images = build(family, proj_drop_rate=0.2)
    options = {"target": TARGET, "second_order": second_order}
    *_, gradients = check_same(model.double().train(), relevit.forward_with_relevance, images.double(), **options)
    assert len(gradients) > 10


@pytest.mark.parametrize("reentrant", [True], indirect=True)
@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_every_explainer(explainer, reentrant):
    model, images = build("vit", attn_drop_rate=0.2)
    options = {"target": TARGET, "explainer": explainer, "second_order": EXPLAINERS[explainer].needs_second_order}
    check_same(model.double().train(), relevit.forward_with_relevance, images.double(), **options)


def test_gradients_by_the_images(reentrant):
    """GradMask's and RRR's, whose attention is of torch's own operations, also when it is computed again."""
    model, images = build("vit", proj_drop_rate=0.2)
    check_same(model.double().train(), logits_and_input_gradient, images.double(), TARGET, InputGradient(label_logit))


def test_without_gradients_nothing_is_computed_again(reentrant):
    model, images = build("vit")
    plain = relevit.relevance(model, images)
    model.set_grad_checkpointing(True)
    with torch.no_grad():
        torch.testing.assert_close(relevit.relevance(model, images), plain)


class Recording(nn.Module):
    """A linear layer that keeps a square by torch's checkpointing, with a context that the caller gave."""

    def __init__(self, **options):
        super().__init__()
        self.linear, self.options = nn.Linear(3, 5), options

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(lambda x: self.linear(x).square(), x, **self.options)


def test_contexts_of_the_repetition_and_of_other_threads():
    entered = []

    @contextmanager
    def within(name):
        entered.append(name)
        yield
        entered.append(f"end of {name}")

    x, places = torch.randn(2, 3), [(torch.utils.checkpoint, name) for name in recomputation._TORCHS]
    originals = [getattr(*place) for place in places]
    own = Recording(use_reentrant=False, context_fn=lambda: (within("forward"), within("own")))
    with recomputed_within(lambda: lambda: within("ours")):
        outputs = [own(x), Recording(use_reentrant=True)(x)]
        forward = len(entered)
        thread = threading.Thread(target=lambda: outputs.append(Recording(use_reentrant=False)(x)))
        thread.start()
        thread.join()
    assert [getattr(*place) for place in places] == originals and entered[:forward] == ["forward", "end of forward"]
    outputs[0].sum().backward()
    assert entered[forward : forward + 2] == ["own", "ours"]
    del entered[:]
    torch.autograd.grad(outputs[1].sum(), [outputs[1]], retain_graph=True)
    outputs[1].sum().backward()
    assert entered[0] == "ours"
    del entered[:]
    outputs[2].sum().backward()
    assert entered == []


def of_transformers(reentrant):
    model = transformers_model("ViT")
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    return model, model.activation_checkpointing_disable


def of_a_wrapped_module(reentrant):
    """Its code calls torch's function by itself."""
    model = wrapped_model("DINO's style")
    blocks = families.of_module(model).blocks(model)
    for block in blocks:
        block.forward = partial(torch.utils.checkpoint.checkpoint, block.forward, use_reentrant=reentrant)
    return model, lambda: [vars(block).pop("forward") for block in blocks]


@pytest.mark.parametrize("make", [of_transformers, of_a_wrapped_module])
def test_models_of_other_libraries(make, reentrant):
    model, plain = make(reentrant)
    model.double().train()
    images, calls = images_for(model), []
    attention = families.of_module(model).attentions(model)[1]
    next(m for m in attention.modules() if isinstance(m, nn.Linear)).register_forward_pre_hook(
        lambda *_: calls.append(1)
    )
    again = results(model, relevit.forward_with_relevance, images, target=TARGET[:2])
    recomputed = len(calls)
    plain()
    expected = results(model, relevit.forward_with_relevance, images, target=TARGET[:2])
    assert recomputed > 2 * (len(calls) - recomputed) > 0
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-10)


def test_attention_that_checkpoints_its_own_code(reentrant):
    """The part that is computed again begins within the attention module."""
    model, images = build("vit", proj_drop_rate=0.2)
    model, options = model.double().train(), {"target": TARGET}
    plain = results(model, relevit.forward_with_relevance, images.double(), **options)
    for block in model.blocks:
        block.attn.forward = partial(torch.utils.checkpoint.checkpoint, block.attn.forward, use_reentrant=reentrant)
    again = results(model, relevit.forward_with_relevance, images.double(), **options)
    torch.testing.assert_close(again, plain, rtol=0, atol=1e-10)
