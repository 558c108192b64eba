"""The command line: argv in, one answer on stdout, the conversation on stderr, an exit code out.

    main        the program, and the only place where an error ends
    commands    the table of commands, imported one at a time
    options     a stage's config as options: each is defined once, in the config
    console     the only owner of stdout and stderr
    listening   progress: a bar on a terminal, a line now and then elsewhere
    failures    any exception as three lines and an exit code

The other modules are one command each.
"""
