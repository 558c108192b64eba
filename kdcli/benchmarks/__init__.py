"""Agents x env -> numbers, side by side.

bench          everything below for all contenders; `record` is that as JSON (schema kdcli.bench/1)
contender      who is measured: an agent run by torch, the same one run by onnxruntime; `lineup`: files made contenders
config         every option of a benchmark
size           parameters, multiply-adds, bytes of the deployed actor
latency        interleaved timing: one process, one thread, each runtime's own empty call beside it
returns        paired episodes, and states from the reference's play
similarity     agreement and KL on these states
statistics, score, verdict     intervals, and what follows from them
baseline       what a linear student may cost
machine        where the numbers hold
"""
