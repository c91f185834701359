"""What can be run: suites, their cases, models and published figures."""
