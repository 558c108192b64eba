"""Distillation: a teacher, labelled states and an architecture in, a smaller agent out."""

from kdcli.registry import Registry

LOSSES = Registry(
    "loss",
    {
        "kl": ("kdcli.distillation.losses:kl", "KL(teacher || student) of the action distributions at temperature tau"),
        "nll": ("kdcli.distillation.losses:nll", "negative log-likelihood of the teacher's greedy action"),
        "action": ("kdcli.distillation.losses:action", "squared distance of the continuous action, bounds at -1 and 1"),
        "huber": ("kdcli.distillation.losses:huber", "Huber error of the continuous action, bounds at -1 and 1"),
        "mean": ("kdcli.distillation.losses:mean", "squared distance of the mean before squashing or clipping"),
        "logits": ("kdcli.distillation.losses:logits", "squared error of the logits, each centred over actions"),
        "q": ("kdcli.distillation.losses:q", "squared error of the Q-values"),
        "q_huber": ("kdcli.distillation.losses:q_huber", "Huber error of the Q-values"),
        "value": ("kdcli.distillation.losses:value", "squared error of the state value"),
    },
)

SCHEDULES = Registry(
    "schedule",
    {
        "constant": ("kdcli.distillation.schedules:constant", "the same number throughout: constant:0.5, or just 0.5"),
        "linear": ("kdcli.distillation.schedules:linear", "a straight line: linear:1->0"),
        "cosine": ("kdcli.distillation.schedules:cosine", "half a cosine, flat at both ends: cosine:1->0"),
        "exponential": ("kdcli.distillation.schedules:exponential", "equal ratios in equal times: exponential:1->0.01"),
        "steps": ("kdcli.distillation.schedules:steps", "equal parts at each number: steps:1->0.5->0.1"),
    },
)
