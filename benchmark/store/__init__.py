"""Verdicts on disk, and which of them tables show. Imports data, stats and suites."""
