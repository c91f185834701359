"""Missing chunks, computed here or on Ray."""
