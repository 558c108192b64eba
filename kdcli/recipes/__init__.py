"""Recipes: chains of steps written in a file, checked as a whole before anything runs, and kept step by step.

recipe     what the file says, and what is said to it
plan       the steps with their options read and their inputs found
kind       what a kind of step promises
steps      the kinds, one file each
run        the run folder: what is there is kept, what is missing is made
"""

from kdcli.registry import Registry

STEPS = Registry(
    "kind of step",
    {
        "load": ("kdcli.recipes.steps.load:KIND", "a checkpoint as an agent file, with its env: path"),
        "rollout": ("kdcli.recipes.steps.rollout:KIND", "a dataset of an agent's experience: agent, student"),
        "distill": ("kdcli.recipes.steps.distill:KIND", "a smaller student: teacher (or several), dataset"),
        "distill-many": (
            "kdcli.recipes.steps.distill_many:KIND",
            "students of several tasks, @NAME/1 is the first one's: teachers",
        ),
        "improve": ("kdcli.recipes.steps.improve:KIND", "an agent with better weights, by its return: agent"),
        "prune": ("kdcli.recipes.steps.prune:KIND", "an agent with fewer numbers: agent"),
        "quantize": ("kdcli.recipes.steps.quantize:KIND", "an agent on fewer bits: agent, teacher"),
        "export": ("kdcli.recipes.steps.export:KIND", "a file for another runtime: agent"),
        "bench": ("kdcli.recipes.steps.bench:KIND", "agents side by side, the first is the reference: agents"),
    },
)
