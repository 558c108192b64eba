"""The kinds of steps that recipes are made of; each joins what a command of the same name joins."""
