"""The statistical check for continuous integration. Imports all folders that a sweep and a report need."""
