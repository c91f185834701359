"""Words to calls: parses, resolves names, prints. May import every folder."""
