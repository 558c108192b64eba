"""Studies: variants of a distillation, each with several seeds, on several teachers, in one table with intervals.

config     what the TOML file says
plan       the cells: one teacher, one variant, one seed
stand      a teacher ready to teach, and what its students are measured against
cell       one distillation and its measurement, as JSON values
folder     a file a cell, so that a study can be stopped, continued, and run by several processes
table      cells -> means over seeds, differences to the base, intervals
page       the table as Markdown
run        the study
"""
