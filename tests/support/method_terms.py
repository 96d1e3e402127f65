"""What the loop hands to a method, drawn at random."""

import torch

from relevit.training.methods import METHODS, LossInputs


def outputs(seed: int = 0) -> LossInputs:
    rng = torch.Generator().manual_seed(seed)
    maps = torch.rand(3, 5, 7, generator=rng, dtype=torch.float64)
    masks = (torch.rand(3, 5, 7, generator=rng, dtype=torch.float64) > 0.5).double()
    ignore = torch.rand(3, 5, 7, generator=rng) > 0.7
    logits, other, reference = torch.randn(3, 3, 11, generator=rng, dtype=torch.float64)
    raw, gradient = 0.02 * maps + 0.001, torch.randn(3, 2, 5, 7, generator=rng, dtype=torch.float64)
    return LossInputs(logits, maps, masks, ignore, torch.tensor([2, 0, 10]), raw, gradient, other, reference)


def needed(name: str, o: LossInputs) -> LossInputs:
    """What the loop would hand to the method, each in a graph."""
    method = METHODS[name]
    return LossInputs(
        o.logits.clone().requires_grad_(),
        o.maps.clone().requires_grad_() if method.needs_maps else None,
        o.masks,
        o.ignore,
        o.labels,
        o.raw.clone().requires_grad_() if method.needs_maps else None,
        o.input_gradient.clone().requires_grad_() if method.input_gradient else None,
        o.other_logits.clone().requires_grad_() if method.other else None,
        o.reference_logits if method.reference else None,
    )
