"""d3rlpy's `.d3` files."""
