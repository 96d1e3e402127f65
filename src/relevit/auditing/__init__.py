"""The audit: does a classifier look at the background, and does the background mislead it?

pictures.py reads the pictures and their masks, conditions.py makes the versions of them, measure.py asks the models,
figures.py counts, verdict.py judges; models.py does all of it, result.py tells what was found, examples.py chooses what is
shown, page.py shows it, folder.py writes it.
"""
