"""A policy as a short list of operations: what every writer and counter reads. Its definitions need no torch."""
