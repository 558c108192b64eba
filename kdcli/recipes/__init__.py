"""The line put together: stages wired into one piece of work, with a clock and a search around them."""
