"""The statistical check for CI. Imports data, evaluation, report, stats, store, suites and sweep."""
