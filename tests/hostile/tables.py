"""Tables that the tests of the corpus leave behind, printed at the end."""

TABLES: list[str] = []
