"""The search for the smallest student that holds, and what it is made of: stages joined under a time budget."""
