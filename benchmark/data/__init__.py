"""Images: datasets, splits, seeded subsets. Imports no other folder of this package."""
