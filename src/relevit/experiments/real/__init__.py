"""The paper's experiments on data sets in the layouts of their publishers: models, places, jobs, and plans of tables."""
