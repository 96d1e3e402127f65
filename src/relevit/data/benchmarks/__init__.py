"""Benchmarks to measure a model on: one file for each, with the functions that find and open it."""

from relevit.data.benchmarks.class_folders import ClassFolders, composed_sets
from relevit.data.benchmarks.image_set import ImageSet, LabelledImage

__all__ = ["ClassFolders", "ImageSet", "LabelledImage", "composed_sets"]
