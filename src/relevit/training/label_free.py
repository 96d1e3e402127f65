"""Losses beyond the paper, of masks alone, without labels: what the map or the prediction owes to the background.

A masked object can be put before any other background; what the model says of it should not change. Each function takes a
batch's `LossInputs` and the method's numbers, as those of methods.py.
"""

from __future__ import annotations

from relevit.training.losses import agreement_loss, confidence_loss, share_loss
from relevit.training.terms import LossInputs, Numbers, Term

SHARE = {"temperature": 1.0, "lambda_relevance": 0.8, "lambda_classification": 0.2}
CONSISTENCY = {"temperature": 1.0, "lambda_consistency": 0.8, "lambda_classification": 0.2}
DISTILLATION = {"temperature": 1.0, "lambda_consistency": 0.8, "lambda_original": 0.2}


def relevance_share(inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
    """Minus the log of the share of raw relevance on the foreground, and the paper's confidence term (Eq. 4)."""
    assert inputs.raw is not None  # the loop computes it for a method with needs_maps
    share = share_loss(inputs.raw, inputs.masks, inputs.ignore)
    confidence = confidence_loss(inputs.logits, numbers["temperature"])
    return {
        "share": Term(numbers["lambda_relevance"], share),
        "confidence": Term(numbers["lambda_classification"], confidence),
    }


def consistency(inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
    """The object before another background gets the prediction of the image as it is (a constant), and Eq. 4."""
    assert inputs.other_logits is not None  # the loop computes them for a method with another picture
    agreement = agreement_loss(inputs.other_logits, inputs.logits, numbers["temperature"])
    confidence = confidence_loss(inputs.logits, numbers["temperature"])
    return {
        "consistency": Term(numbers["lambda_consistency"], agreement),
        "confidence": Term(numbers["lambda_classification"], confidence),
    }


def distillation(inputs: LossInputs, numbers: Numbers) -> dict[str, Term]:
    """The object before another background gets what the original model says of the image as it is, and so does the image.

    The original's prediction cannot drift along, as that of `consistency` can; no further term has to hold the model.
    """
    assert inputs.other_logits is not None and inputs.reference_logits is not None  # the loop computes them
    reference, temperature = inputs.reference_logits, numbers["temperature"]
    return {
        "consistency": Term(numbers["lambda_consistency"], agreement_loss(inputs.other_logits, reference, temperature)),
        "original": Term(numbers["lambda_original"], agreement_loss(inputs.logits, reference, temperature)),
    }
