"""This harness beside others."""
