"""Words to calls: parses, dispatches, prints."""
