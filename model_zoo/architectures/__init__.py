"""Networks by name. Imports no other folder of this package."""
