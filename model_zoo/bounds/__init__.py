"""What can be proven of a network. Imports architectures."""
