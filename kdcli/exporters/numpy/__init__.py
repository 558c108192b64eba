"""A graph as a NumPy script and its weights."""
