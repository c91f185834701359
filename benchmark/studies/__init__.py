"""Experiments of the papers, computed: one file a study. Imports all folders before it, and no command line."""
