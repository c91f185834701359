"""What is proven of a model: methods, and certificates into the store. Imports sweep and what that may."""
