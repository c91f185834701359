"""Verdicts on disk."""
