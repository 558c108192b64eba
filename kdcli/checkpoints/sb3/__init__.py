"""Stable-Baselines3 and sb3-contrib zips, with RL Zoo's folders around them."""
