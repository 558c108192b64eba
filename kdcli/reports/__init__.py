"""Numbers to what people and pipelines read. Everything here is made of the record of a benchmark (`kdcli.bench/1`).

table          title and tables, for the console
notes          what the numbers mean, in sentences
markdown       both as Markdown
gates          what a pipeline asks of the numbers: passed, failed or undecided; `config` holds them as options
"""
