"""Models that nobody here wrote: found, run in their own surroundings, and understood."""
