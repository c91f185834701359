"""Intervals and tests of shares of images. Imports no other folder of this package."""
