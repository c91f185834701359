"""Models that nobody here wrote: how each must be run, and running it so. Imports files of attacks beside it."""
