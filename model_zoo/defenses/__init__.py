"""Losses that train against an attack, one file each. Imports architectures and bounds."""
