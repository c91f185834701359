"""The training loop and what it is given: recipes, batches, processes, state."""
