"""A store to tables, pages and plots, without a model. Imports data, stats, suites, store, corruptions."""
