"""Measuring classifiers: `evaluate` runs one or several models over one or several benchmarks, each image read once.

One file per measurement, in accuracy/, maps/ and frozen/: what it needs, its rows, its figures; measurements.py is the table.
How it is done: run.py (`evaluate`, from arguments to a report) and measurements.py (`measure`), engine.py (the pass over the
images), batches.py (images to models), shards.py, rows.py (a row an image), folder.py (what is on the disk), measured.py and
accuracy/report.py (from rows to figures).
"""

from relevit.evaluation.accuracy.predictions import Predictions, read_predictions
from relevit.evaluation.accuracy.report import Report
from relevit.evaluation.run import evaluate

__all__ = ["Predictions", "Report", "evaluate", "read_predictions"]
