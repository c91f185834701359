"""Users' models: found, run in their own surroundings, and asked how. Imports files."""
