"""Losses beyond the paper, of masks alone, without labels: what the map or the prediction owes to the background.

A masked object can be put before any other background; what the model says of it should not change. Each function takes a
batch's outputs and the options, as those of methods.py.
"""

from __future__ import annotations

from relevit.training.losses import agreement_loss, confidence_loss, share_loss
from relevit.training.terms import Options, Outputs, Term

SHARE = {"temperature": 1.0, "lambda_relevance": 0.8, "lambda_classification": 0.2}
CONSISTENCY = {"temperature": 1.0, "lambda_consistency": 0.8, "lambda_classification": 0.2}
DISTILLATION = {"temperature": 1.0, "lambda_consistency": 0.8, "lambda_original": 0.2}


def relevance_share(outputs: Outputs, options: Options) -> dict[str, Term]:
    """Minus the log of the share of raw relevance on the foreground, and the paper's confidence term (Eq. 4)."""
    assert outputs.raw is not None  # the loop computes it for a method with needs_maps
    share = share_loss(outputs.raw, outputs.masks, outputs.ignore)
    confidence = confidence_loss(outputs.logits, options["temperature"])
    return {
        "share": Term(options["lambda_relevance"], share),
        "confidence": Term(options["lambda_classification"], confidence),
    }


def consistency(outputs: Outputs, options: Options) -> dict[str, Term]:
    """The object before another background gets the prediction of the image as it is (a constant), and Eq. 4."""
    assert outputs.other_logits is not None  # the loop computes them for a method with an other view
    agreement = agreement_loss(outputs.other_logits, outputs.logits, options["temperature"])
    confidence = confidence_loss(outputs.logits, options["temperature"])
    return {
        "consistency": Term(options["lambda_consistency"], agreement),
        "confidence": Term(options["lambda_classification"], confidence),
    }


def distillation(outputs: Outputs, options: Options) -> dict[str, Term]:
    """The object before another background gets what the original model says of the image as it is, and so does the image.

    The original's prediction cannot drift along, as that of `consistency` can; no further term has to hold the model.
    """
    assert outputs.other_logits is not None and outputs.reference_logits is not None  # the loop computes them
    reference, temperature = outputs.reference_logits, options["temperature"]
    return {
        "consistency": Term(
            options["lambda_consistency"], agreement_loss(outputs.other_logits, reference, temperature)
        ),
        "original": Term(options["lambda_original"], agreement_loss(outputs.logits, reference, temperature)),
    }
