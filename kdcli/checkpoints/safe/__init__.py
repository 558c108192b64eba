"""Bytes to checked values: pickles interpreted from an allow-list, zips, torch files. Nothing in a file is run."""
