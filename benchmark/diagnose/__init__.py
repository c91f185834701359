"""Is an attack shown to work on a model: checks, each with a test. May import all up to the sweep."""
