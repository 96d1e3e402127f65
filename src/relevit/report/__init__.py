"""What a run leaves to look at: the page, its plots, the map pictures."""
