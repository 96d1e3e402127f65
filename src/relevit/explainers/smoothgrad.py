"""SmoothGrad (Smilkov et al. 2017), by captum."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from relevit.explainers.attention_maps import (
    check_images,
    check_logits,
    explaining,
    no_parameter_gradients,
    pick_target,
)

_AT_ONCE = 16


def explain(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"] | None,
    *,
    second_order: bool = False,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch height width"]]:
    """Logits, and how much each pixel matters to the logit: |mean gradient over noisy copies|, largest of the channels, not scaled.

    Smilkov et al. 2017, section 3: `samples` copies of each image with Gaussian noise, whose standard deviation is `noise` times
    the image's range of values; magnitude and largest channel as in Simonyan et al. 2014, section 3.1. It tells what the logit is
    sensitive to, for or against the class. Every image has the same noise, drawn by the seed, so that a map does not depend on the
    batch; the global generators are left as they are. The map never has a graph.
    Raises UserError for a model or an image size that is not supported, and for a target outside of the classes.
    """
    check_images(model, images)
    with explaining(model, images) as (images, keep_graph):
        with torch.set_grad_enabled(keep_graph):
            logits = model(images)
        check_logits(logits)
        target = pick_target(logits, target)
        with no_parameter_gradients(model):
            found = [
                _mean_gradient(model, images[i : i + 1].detach(), int(target[i]), samples, noise, seed)
                for i in range(len(images))
            ]
        return logits, torch.cat(found).detach().abs().amax(dim=1)


def _mean_gradient(
    model: nn.Module,
    image: Float[Tensor, "1 channels height width"],
    target: int,
    samples: int,
    noise: float,
    seed: int,
) -> Float[Tensor, "1 channels height width"]:
    from captum.attr import NoiseTunnel, Saliency

    wide = image.to(torch.promote_types(image.dtype, torch.float32))  # as the noise is drawn
    spread = noise * float(image.max() - image.min())
    on_cuda = image.device.type == "cuda"
    with torch.random.fork_rng(devices=[image.device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(image.device):
                torch.cuda.manual_seed(seed)
        return NoiseTunnel(Saliency(lambda noisy: model(noisy.to(image.dtype)))).attribute(
            wide.requires_grad_(),
            nt_type="smoothgrad",
            nt_samples=samples,
            nt_samples_batch_size=min(_AT_ONCE, samples),
            stdevs=spread,
            target=target,
            abs=False,
        )
