"""The verbs of kdcli, one module each: the implementation that the command line and recipes call.

options     keyword arguments to configs, and back
agents      what may be given for an agent: a file, a kdcli agent, a Stable-Baselines3 model
envs        what may be given for an env: a gymnasium id, a callable, an env
result      what every verb returns has in common

`import kdcli` resolves the verbs lazily: `kdcli.distill` is `kdcli.api.distill:distill`.
"""
