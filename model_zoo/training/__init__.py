"""The training loop and what it takes: recipes, batches, processes, state. Imports all folders but user_models."""
