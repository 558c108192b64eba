"""Recorded experience with the teacher's outputs beside it: a folder of shards, read without loading it whole.

    shards      one file: columns of equal length, some of whole episodes
    manifest    what the folder holds, how it was made, and the digest of every shard
    writer      a folder that grows a shard at a time, and goes on where it was interrupted
    reader      minibatches, chunks and returns of a finished folder

Columns; N rows, the rows of an episode together and in order of time:

    obs             (N, *shape) raw observation before acting, as the env gave it
    action          (N, *shape) what was done, as env.step took it
    behaviour       (N,) int8, who chose the action: 0 teacher, 1 student, 2 chance
    reward          (N,) float64
    terminated, truncated   (N,) bool; an episode that was running when its shard was full ends with neither
    episode         (N,) int64, a number of its own for each episode; numbers are left out between shards
    t               (N,) int32, steps since the episode began
    seed            (N,) int64, the reset seed of the episode
    teacher.<name>  (N, ...) the columns of `kdcli.agents.labels.label`
"""

from __future__ import annotations

from kdcli.datasets.reader import Dataset

__all__ = ["Dataset"]
