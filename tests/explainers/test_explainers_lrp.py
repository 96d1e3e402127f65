"""AttnLRP against relevance that is propagated layer by layer, in NumPy and float64, with an account of where relevance is lost."""

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import nn

import relevit
from families import build
from relevit.explainers.attn_lrp import propagate

TARGET = [5, 0, 3]


def linear(x, weight, bias, relevance, lost):
    """Epsilon rule, epsilon 0: R_i = sum over j of x_i w_ji / z_j R_j, over the last axis; what the bias takes is lost."""
    z = x @ weight.T + bias
    share = relevance / z
    lost.append((bias * share).sum())
    return x * (share @ weight)


def layer_norm(x, norm, relevance, lost):
    """The standard deviation is a constant: what is left is linear, y_j = g_j / std (x_j - mean) + b_j."""
    width = x.shape[-1]
    g, b = (p.detach().numpy() for p in (norm.weight, norm.bias))
    std = np.sqrt(x.var(axis=-1) + norm.eps)
    result = np.empty_like(x)
    for token in range(x.shape[0]):
        matrix = (np.eye(width) - 1.0 / width) * g[:, None] / std[token]
        result[token] = linear(x[token : token + 1], matrix, b, relevance[token : token + 1], lost)[0]
    return result


def product(a, b, relevance):
    """y = a b, of activations both: R of a_ji is half the sum over p of a_ji b_ip / y_jp R_jp, likewise b's."""
    share = relevance / (a @ b)
    return 0.5 * a * (share @ b.T), 0.5 * b * (a.T @ share)


def attention(x, block, relevance, lost):
    """Relevance of the attention's input, from that of its output, head by head."""
    attn, tokens = block.attn, x.shape[0]
    weights = {n: p.detach().numpy() for n, p in attn.named_parameters()}
    qkv = (x @ weights["qkv.weight"].T + weights["qkv.bias"]).reshape(tokens, 3, attn.num_heads, attn.head_dim)
    relevance_of_qkv = np.zeros_like(qkv)
    soft, outputs = [], np.empty((tokens, attn.num_heads, attn.head_dim))
    for head in range(attn.num_heads):
        q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
        scores = q @ k.T * attn.scale
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        soft.append((scores, e / e.sum(axis=1, keepdims=True)))
        outputs[:, head] = soft[-1][1] @ v
    relevance = linear(outputs.reshape(tokens, -1), weights["proj.weight"], weights["proj.bias"], relevance, lost)
    relevance = relevance.reshape(outputs.shape)
    for head in range(attn.num_heads):
        scores, s = soft[head]
        of_s, of_v = product(s, qkv[:, 2, head], relevance[:, head])
        of_scores = scores * (of_s - s * of_s.sum(axis=1, keepdims=True))  # Taylor rule
        lost.append(of_s.sum() - of_scores.sum())
        of_q, of_k = product(qkv[:, 0, head], qkv[:, 1, head].T, of_scores / attn.scale * attn.scale)
        relevance_of_qkv[:, 0, head], relevance_of_qkv[:, 1, head], relevance_of_qkv[:, 2, head] = of_q, of_k.T, of_v
    return linear(x, weights["qkv.weight"], weights["qkv.bias"], relevance_of_qkv.reshape(tokens, -1), lost)


def run(function, x):
    with torch.no_grad():
        return function(torch.from_numpy(x)[None])[0].numpy()


def by_layers(model, image, target):
    """(relevance of the pixels (channels, height, width), the logit, what biases, class token, positions and softmax took)."""
    lost = []
    parameters = {n: p.detach().numpy() for n, p in model.named_parameters()}
    patch, (channels, height, width) = 16, image.shape
    rows, columns = height // patch, width // patch
    cut = (
        image.numpy()
        .reshape(channels, rows, patch, columns, patch)
        .transpose(1, 3, 0, 2, 4)
        .reshape(rows * columns, -1)
    )
    embedding = parameters["patch_embed.proj.weight"].reshape(model.embed_dim, -1)
    patches = cut @ embedding.T + parameters["patch_embed.proj.bias"]
    start = np.concatenate([parameters["cls_token"][0], patches])
    x = start + parameters["pos_embed"][0]

    stream = [x]
    for block in model.blocks:
        middle = stream[-1] + run(block.attn, run(block.norm1, stream[-1]))
        stream += [middle, middle + run(block.mlp, run(block.norm2, middle))]
    features = run(model.norm, stream[-1])
    logits = features[0] @ parameters["head.weight"].T + parameters["head.bias"]

    relevance = np.zeros_like(logits)
    relevance[target] = logits[target]
    of_features = np.zeros_like(features)
    of_features[0] = linear(features[0], parameters["head.weight"], parameters["head.bias"], relevance, lost)
    relevance = layer_norm(stream[-1], model.norm, of_features, lost)
    for index in reversed(range(len(model.blocks))):
        block, before, middle, after = model.blocks[index], *stream[2 * index : 2 * index + 3]
        of_mlp = (after - middle) / after * relevance  # a sum: each part by its share
        given = run(block.norm2, middle)
        hidden = given @ block.mlp.fc1.weight.detach().numpy().T + block.mlp.fc1.bias.detach().numpy()
        active = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))  # identity rule: the relevance of both is the same
        w, b = block.mlp.fc2.weight.detach().numpy(), block.mlp.fc2.bias.detach().numpy()
        of_mlp = linear(active, w, b, of_mlp, lost)
        w, b = block.mlp.fc1.weight.detach().numpy(), block.mlp.fc1.bias.detach().numpy()
        of_mlp = linear(given, w, b, of_mlp, lost)
        relevance = middle / after * relevance + layer_norm(middle, block.norm2, of_mlp, lost)

        of_attention = attention(run(block.norm1, before), block, (middle - before) / middle * relevance, lost)
        relevance = before / middle * relevance + layer_norm(before, block.norm1, of_attention, lost)
    of_start = start / x * relevance
    lost += [relevance.sum() - of_start.sum(), of_start[0].sum()]
    of_pixels = linear(cut, embedding, parameters["patch_embed.proj.bias"], of_start[1:], lost)
    of_pixels = of_pixels.reshape(rows, columns, channels, patch, patch).transpose(2, 0, 3, 1, 4)
    return of_pixels.reshape(channels, height, width), logits[target], sum(lost)


@pytest.mark.parametrize("seed", [1, 2])
def test_against_propagation_by_layers(seed):
    """Elementwise; and relevance is conserved: the logit is the pixels' relevance and what is known to be lost."""
    model, images = build("vit", seed)
    model, images = model.double(), images.double()
    logits, factor = propagate(model, images, torch.tensor(TARGET))
    maps = relevit.relevance(model, images, torch.tensor(TARGET), "attn_lrp", normalize=False)
    for i, target in enumerate(TARGET):
        wanted, logit, lost = by_layers(model, images[i], target)
        assert wanted.sum() + lost == pytest.approx(logit, rel=1e-8) and abs(lost) > 1e-3 * abs(logit)
        assert logits[i, target].item() == pytest.approx(logit, rel=1e-10)
        np.testing.assert_allclose((images * factor)[i].numpy(), wanted, rtol=1e-6, atol=1e-9 * np.abs(wanted).max())
        np.testing.assert_allclose(
            maps[i].numpy(), wanted.sum(axis=0).clip(min=0), rtol=1e-6, atol=1e-9 * np.abs(wanted).max()
        )


@pytest.mark.parametrize("family", ["vit_mean", "siglip_mean", "clip_quickgelu", "eva02"])
def test_conservation(family):
    """Where nothing can get lost (no biases, no positions, attention without effect), the pixels' relevance is the logit."""
    model, images = build(family, 3)
    model, images = model.double(), images.double()
    if family == "clip_quickgelu":  # its class token has no relevance of pixels without attention
        model.global_pool, model.fc_norm, model.norm = "avg", model.norm, nn.Identity()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or name.endswith("attn.proj.weight") or name in ("pos_embed", "cls_token"):
                parameter.zero_()
    logits, factor = propagate(model, images, torch.tensor(TARGET))
    torch.testing.assert_close((images * factor).sum(dim=(1, 2, 3)), logits[[0, 1, 2], TARGET], rtol=1e-9, atol=1e-12)


def test_two_halves_of_an_attention():
    """One attention alone: half of the values' share is the plain product with the weights held, half goes through the scores."""
    model, images = build("vit", 4)
    model, images = model.double(), images.double()
    with torch.no_grad():
        for block in model.blocks:
            q_and_k = slice(0, 2 * model.embed_dim)
            block.attn.qkv.weight[q_and_k] = 0.0  # all scores are the same: no relevance passes through them
    _, factor = propagate(model, images, torch.tensor(TARGET))
    images.requires_grad_()

    def halved(module, args, output):
        return 0.5 * output + 0.5 * output.detach()

    handles = [block.attn.proj.register_forward_pre_hook(lambda m, a: (halved(m, a, a[0]),)) for block in model.blocks]
    for module in model.modules():  # the other rules, by hooks: normalisation and GELU with what they divide by held
        if isinstance(module, nn.LayerNorm):
            handles.append(module.register_forward_hook(held_norm))
        if isinstance(module, nn.GELU):
            handles.append(module.register_forward_hook(lambda m, a, y: a[0] * (y / a[0]).detach()))
    (wanted,) = torch.autograd.grad(model(images)[[0, 1, 2], TARGET].sum(), images)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(factor, wanted, rtol=1e-8, atol=1e-12)


def held_norm(module, args, output):
    centred = args[0] - args[0].mean(dim=-1, keepdim=True)
    std = (args[0].var(dim=-1, correction=0, keepdim=True) + module.eps).sqrt().detach()
    return centred / std * module.weight + module.bias


class Reciprocal(nn.Module):
    def forward(self, x):
        return 1.0 / (2.0 + x * x)


class Quotient(nn.Module):
    def forward(self, x):
        return torch.ones(x.shape) / (2.0 + x * x)


@pytest.mark.parametrize(
    ("activation", "message"),
    [(nn.Softplus, "operation softplus"), (Reciprocal, "operation __rdiv__"), (Quotient, "a division by activations")],
)
def test_an_operation_without_a_rule(activation, message):
    model, images = build("vit")
    model.blocks[1].mlp.act = activation()
    with pytest.raises(relevit.UserError, match=f"attn_lrp has no rule for (the )?{message}"):
        relevit.relevance(model, images, explainer="attn_lrp")
    assert relevit.relevance(model, images, explainer="input_x_gradient").isfinite().all()


def test_zeros_have_no_relevance():
    """A picture of zeros, and units that are exactly zero: finite, and nothing is relevant."""
    model, images = build("vit")
    with torch.no_grad():
        model.blocks[0].mlp.fc1.weight[:3] = 0.0
        model.blocks[0].mlp.fc1.bias[:3] = 0.0
    maps = relevit.relevance(model, images, explainer="attn_lrp", second_order=True)
    maps.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert torch.equal(relevit.relevance(model, images * 0, explainer="attn_lrp"), torch.zeros(3, 48, 80))
