"""Trained models: networks, weights, defenses and the trainer. Imports attacks."""
