"""A store to tables, pages and plots."""
