"""Files: written whole, claimed, fetched."""
