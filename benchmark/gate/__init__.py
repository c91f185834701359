"""The statistical check of continuous integration."""
