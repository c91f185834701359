"""What can be run: suites, their cases and models, published figures. Imports data."""
