"""Figures with their uncertainty: one `Estimate` for every measured mean, share and difference; all intervals are 95%."""
