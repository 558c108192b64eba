"""kdcli gives back the smallest policy that is provably as good as a trained agent, as a file other runtimes read.

The map of the house; each stage is one room, one subcommand, one file on disk:

    checkpoints    foreign file -> Agent            kdcli load, inspect
    rollouts       Agent x env -> Dataset           kdcli rollout
    distillation   teacher x data -> smaller Agent  kdcli distill
    pruning        Agent -> thinner Agent           kdcli prune
    quantization   Agent -> fewer bits              kdcli quantize
    exporters      Agent -> ONNX, C, NumPy, torch   kdcli export
    benchmarks     Agents x env -> numbers          kdcli bench
    recipes        the whole line                   kdcli compress, run, study

Below them: `networks` (architectures), `agents` (everything needed to act), `graph` (a policy as a list of
operations), `envs` (the only room that knows gymnasium), `datasets`, and the words `errors`, `registry`, `choice`,
`spec`, `artifact`, `progress`. Above them: `cli`, the only room that prints.
"""
