"""Accuracy under common corruptions, which nobody chose against the model. Imports sweep and what that may."""
