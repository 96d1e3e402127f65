"""Where experiments are run: the built-in benchmark, and data sets in the layouts of their publishers."""
