"""How the students of a search see the world: without what never varies there."""

from __future__ import annotations

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess, Preprocessor
from kdcli.distillation.student import preprocess_for
from kdcli.errors import RefusedError
from kdcli.progress import Listener, Note
from kdcli.pruning.lossless import proved
from kdcli.pruning.states import real_states

_STATES = 20_000  # real states in which an input that is left out never varied, and as many of other episodes


def varying(teacher: Actor, observations: np.ndarray, seed: int, listener: Listener) -> Preprocessor | None:
    """What varies of numbers, where some do not in `observations` (N, F); None where all do, and of all else.

    An input is left out where the teacher without it acts alike on real states of other episodes.
    """
    if not isinstance(teacher, Agent) or teacher.state_size or not isinstance(teacher.preprocess, Preprocess):
        return None
    if teacher.preprocess.image or observations.ndim != 2 or (observations != observations[0]).any(0).all():
        return None
    try:
        slim = proved(teacher, lambda k: real_states(teacher, _STATES, seed + k)).agent
    except RefusedError:
        return None
    sees = preprocess_for(slim, observations)
    if not isinstance(sees, Preprocess) or sees.n_features == teacher.preprocess.n_features:
        return None
    n = teacher.preprocess.n_features
    listener(Note(f"students read {sees.n_features} of {n} inputs: the others never vary, proved on real states"))
    return sees
