"""Data: image and mask pairs, their checks and splits, the views that a model sees, compositions and benchmarks."""
