"""This harness beside other programs. Imports data, suites, store, evaluation and report."""
