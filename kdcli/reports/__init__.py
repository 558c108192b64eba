"""Numbers to what people and pipelines read. Everything here is made of the record of a benchmark (`kdcli.bench/1`).

table          titles, rows and notes, for the console
markdown       the same as Markdown
gates          what a pipeline asks of the numbers: passed, failed or undecided
"""
