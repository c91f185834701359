"""What precedes a training: settings, and models or labels that it begins with. Imports data and suites."""
