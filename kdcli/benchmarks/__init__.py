"""Agents x env -> numbers, side by side.

bench          everything below for all contenders; `record` is that as JSON (schema kdcli.bench/1)
contender      who is measured: an agent run by torch, the same one run by onnxruntime; `entries`: files made contenders
config         every option of a benchmark
size           parameters, multiply-adds, bytes of the deployed actor
program        what is timed: a policy in one runtime, ready to be called, with that runtime's empty call
latency        interleaved timing of any number of programs: one process, one thread
target         what a deployed policy may take: `onnxruntime:latency_us<=8`, `c:bytes<=8192`
speedup        where a speed-up comes from: runtime, architecture, precision
returns        paired episodes, and states from the reference's play
similarity     agreement and KL on these states
statistics     intervals of means
betting        intervals of ratios that are true at all looks and count unseen falls
score, tail    what a student keeps of its teacher's gain, on average and in its worst episodes
verdict        holds, fails or undecided; `sequential`: reached look by look
baseline       what a linear student may cost
machine        where the numbers hold
"""
