"""Measuring classifiers: `evaluate` runs one or several models over one or several benchmarks, each image read once.

One file per measurement: accuracy.py (R@1 and R@5), calibration.py, comparison.py (two models), class_sets.py (set A
against the rest), background_gap.py (of sets made by `relevit compose`). How it is done: run.py (from arguments to a report),
engine.py (the pass over the images), shards.py, predictions.py (the rows), folder.py (what is on the disk), summary.py (from
rows to figures).
"""

from relevit.evaluation.accuracy.predictions import Predictions, read_predictions
from relevit.evaluation.run import evaluate
from relevit.evaluation.summary import Report

__all__ = ["Predictions", "Report", "evaluate", "read_predictions"]
