"""Checkpoints to state dicts, without running code from them. Imports files."""
