"""SmoothGrad (Smilkov et al. 2017), by captum."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relevit.explainers.attention_maps import Explanation, Request, explainer, no_parameter_gradients, pick_target
from relevit.models.families import logits_of

SAMPLES, NOISE, SEED = 25, 0.15, 0
_AT_ONCE = 16


@explainer
def explain(request: Request) -> Explanation:
    """Logits, and how much each pixel matters to the logit: |mean gradient over noisy copies|, largest of the channels, not scaled.

    Smilkov et al. 2017, section 3: `SAMPLES` copies of each image with Gaussian noise, whose standard deviation is `NOISE` times
    the image's range of values; magnitude and largest channel as in Simonyan et al. 2014, section 3.1. It tells what the logit is
    sensitive to, for or against the class. Every image has the same noise, drawn by `SEED`, so that a map does not depend on the
    batch; the global generators are left as they are. The map never has a graph.
    """
    logits = request.logits()
    with no_parameter_gradients(request.model):
        gradients = [
            _mean_gradient(request.model, image[None].detach(), int(index))
            for image, index in zip(request.images, pick_target(logits, request.target), strict=True)
        ]
    return logits, torch.cat(gradients).detach().abs().amax(dim=1)


def _mean_gradient(
    model: nn.Module,
    image: Float[Tensor, "1 channels height width"],
    target: int,
) -> Float[Tensor, "1 channels height width"]:
    from captum.attr import NoiseTunnel, Saliency

    wide = image.to(torch.promote_types(image.dtype, torch.float32))  # as the noise is drawn
    spread = NOISE * float(image.max() - image.min())
    on_cuda = image.device.type == "cuda"
    with torch.random.fork_rng(devices=[image.device] if on_cuda else []):
        torch.default_generator.manual_seed(SEED)
        if on_cuda:
            with torch.cuda.device(image.device):
                torch.cuda.manual_seed(SEED)
        return NoiseTunnel(Saliency(lambda noisy: logits_of(model, noisy.to(image.dtype)))).attribute(
            wide.requires_grad_(),
            nt_type="smoothgrad",
            nt_samples=SAMPLES,
            nt_samples_batch_size=min(_AT_ONCE, SAMPLES),
            stdevs=spread,
            target=target,
            abs=False,
        )
