"""The engines of attention give the same as the one that keeps maps, which test_gae.py holds against the formula written out."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import relevit
from families import build
from relevit.explainers import frugal_attention
from relevit.explainers.engines import map, tiled
from relevit.explainers.engines.attended import Attended, FromRow

BATCH, HEADS, QUERIES, KEYS, DIM = 2, 3, 11, 17, 5


def passes(engine, rows, dtype, bias=None):
    """All that an engine computes of one attention, with a row of relevance that is zero outside of `rows`."""
    draw = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=draw).half().to(dtype)  # the same numbers in every precision

    query, key, value = (random(BATCH, tokens, HEADS, DIM).transpose(1, 2) for tokens in (QUERIES, KEYS, KEYS))
    to_output, d = (random(BATCH, QUERIES, HEADS, DIM).transpose(1, 2) for _ in "ab")
    row, to_carried = random(BATCH, QUERIES).abs(), random(BATCH, KEYS)
    outside = torch.ones(QUERIES, dtype=torch.bool)
    outside[rows] = False
    row[:, outside], d[:, :, outside] = 0.0, 0.0
    output, kept = engine.forward(query, key, value, bias, 0.4)
    attended = Attended(query, key, value, bias, 0.4, output, kept)
    logit = engine.backward(attended, d, row, rows, None, True)
    alone = engine.carry(attended, d[:, :, rows], row, rows)
    back, per_head = engine.carry_back(attended, d[:, :, rows], to_carried, rows, alone.mean)
    from_row = FromRow(row[:, rows], to_carried, d[:, :, rows], rows)
    loss = engine.backward(attended, to_output, None, None, from_row, True)
    again = engine.backward(attended, to_output, None, None, from_row._replace(per_head=per_head), True)
    tensors = [output, logit.carried.row, alone.row, back, *logit[:4], *loss[:4], *again[:4]]
    return [x for x in tensors if x is not None]


@pytest.mark.parametrize("rows", [slice(0, QUERIES), slice(3, 8)])
@pytest.mark.parametrize("shape", [None, (1, HEADS, QUERIES, KEYS), (BATCH, 1, QUERIES, KEYS)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_tiles(rows, shape, dtype, tolerance, monkeypatch):
    """One query at a time, some of a head, some heads, or all at once; with a bias; a row of which a part is zero."""
    bias = None if shape is None else torch.randn(*shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    wanted = passes(map, rows, dtype, bias)
    for tile_bytes in (1, 500, 3000, 1 << 20):
        monkeypatch.setattr(tiled, "_TILE_BYTES", {"cpu": tile_bytes})
        found = passes(tiled, rows, dtype, bias)
        assert len(wanted) == len(found) == 13 + 3 * (bias is not None)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def step(model, images, attention):
    """Logits, maps, and a loss's derivatives by all weights."""
    logits, maps = relevit.forward_with_relevance(model, images, torch.tensor([5, 0, 3]), attention=attention)
    loss = (maps * torch.linspace(0, 1, maps.numel(), dtype=maps.dtype).view_as(maps)).sum() + logits.square().sum()
    return [logits, maps, *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("family", ["vit", "vit_mean", "siglip", "beit"])
@pytest.mark.parametrize(
    ("dtype", "tolerance", "checkpointing"), [(torch.float64, 1e-10, True), (torch.float32, 3e-6, False)]
)
def test_step(family, dtype, tolerance, checkpointing, monkeypatch):
    """A whole step, with several tiles, is that of the maps."""
    monkeypatch.setattr(tiled, "_TILE_BYTES", {"cpu": 300})
    model, images = build(family, 2)
    model, images = model.to(dtype), images.to(dtype)
    model.set_grad_checkpointing(checkpointing)
    wanted, found = step(model, images, "map"), step(model, images, "tiled")
    largest = max(float(x.abs().max()) for x in wanted[2:])
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        scale = float(b.detach().abs().max()) if i < 2 else largest
        assert float((a - b).detach().abs().max()) < tolerance * scale, i


def test_no_map_is_made(monkeypatch):
    """No tensor has as many numbers as queries times keys, neither in the forward pass nor in the two backward ones."""
    monkeypatch.setattr(tiled, "_TILE_BYTES", {"cpu": 4 * 600})
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.ndim and "flash" not in func.name():
                largest.append((made.shape[-2:].numel(), func.name()))
            return made

    def attend(engine):
        query, key, value = torch.randn(3, 1, 1, 61, 4).unbind()
        query.requires_grad_()
        block = frugal_attention.frugal_attention(query, key, value, None, 0.5, engine)
        row = frugal_attention.Row(torch.ones(1, 61), slice(0, 61), 61)
        with frugal_attention.logit_backward([block], row):
            torch.autograd.grad(block.output.sum(), query, retain_graph=True)
        carried = frugal_attention.frugal_carry(
            torch.ones(1, 61, requires_grad=True), block, torch.randn(1, 1, 61, 4), slice(0, 61)
        )
        with Watch():
            torch.autograd.grad(carried.square().sum() + block.output.sum(), query)
        return max(largest)[0]

    assert attend("tiled") < 61 * 61
    assert attend("map") >= 61 * 61


def test_choice(monkeypatch):
    """By tokens on a processor; forced by name; a name that is not known, and what Triton cannot do, is said."""
    few, many = torch.zeros(1, 1, 50, 4), torch.zeros(1, 1, 1000, 4)
    choose = frugal_attention.engine_for
    assert choose(few, few, None, "auto") is map and choose(many, many, None, "auto") is tiled
    assert choose(few, few, None, "tiled") is tiled and choose(many, many, None, "map") is map
    model, images = build("vit")
    with pytest.raises(relevit.UserError, match=r"attention='triton' is not possible: .*; choose 'tiled' or 'auto'"):
        relevit.relevance(model, images, attention="triton")
    with pytest.raises(relevit.UserError, match="unknown attention 'flash': known are auto, map, tiled, triton"):
        relevit.relevance(model, images, attention="flash")
