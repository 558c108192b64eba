"""Environments: made from a description, stepped in batches. The only room that knows gymnasium."""

from kdcli.registry import Registry

WRAPPERS = Registry(
    "env wrapper",
    {
        "pad": ("kdcli.envs.wrappers.vectors:pad", "append N zeros to the observation, pad:84 (inputs always 0)"),
        "time-feature": (
            "kdcli.envs.wrappers.vectors:time_feature",
            "append 1 - t/N; N: the env's limit, else fallback=1000; test=true: always 1",
        ),
        "mask-velocity": ("kdcli.envs.wrappers.vectors:mask_velocity", "velocities as 0, as in RL Zoo's NoVel envs"),
        "history": (
            "kdcli.envs.wrappers.vectors:history",
            "the last N observations, then the last N actions, history:2",
        ),
        "flatten": ("kdcli.envs.wrappers.vectors:flatten", "any observation as one vector (a Dict or Tuple, an image)"),
        "frame-stack": (
            "kdcli.envs.wrappers.stack:frame_stack",
            "the last N observations, frame-stack:4; pad=zeros|first|numbers, axis=auto|last|first|new",
        ),
        "frame-skip": ("kdcli.envs.wrappers.actions:frame_skip", "each action N times, rewards added, frame-skip:2"),
        "sticky": ("kdcli.envs.wrappers.actions:sticky", "the last action again with probability P, sticky:0.25"),
        "rescale-action": ("kdcli.envs.wrappers.actions:rescale_action", "actions from low=-1 to high=1"),
        "clip-action": ("kdcli.envs.wrappers.actions:clip_action", "actions clipped to the env's bounds"),
        "time-limit": ("kdcli.envs.wrappers.actions:time_limit", "cut an episode after N steps, time-limit:500"),
        "action-mask": (
            "kdcli.envs.wrappers.mask:action_mask",
            "observe which actions are allowed, as action_mask; action-mask:METHOD of the env",
        ),
        "atari": (
            "kdcli.envs.wrappers.atari:atari",
            "gray frames as DQN saw them, atari:84; noop=30, skip=4, sticky=0, style=sb3|gymnasium|ale, flat=false",
        ),
        "crop-rows": ("kdcli.envs.wrappers.images:crop_rows", "the rows of an image from first=0 to before end"),
        "grayscale": ("kdcli.envs.wrappers.images:grayscale", "gray images, grayscale:weights|cv2|mean; flat=false"),
        "resize": ("kdcli.envs.wrappers.images:resize", "images of height x width, resize:64x64; by=area|bilinear"),
        "bytescale": ("kdcli.envs.wrappers.images:bytescale", "each frame's least to greatest value as 0 to 255"),
        "bytes": ("kdcli.envs.wrappers.images:to_bytes", "numbers between bounds as 0 to 255 (true is 255)"),
        "channels-first": ("kdcli.envs.wrappers.images:channels_first", "images (C, H, W) from (H, W, C)"),
        "channels-last": ("kdcli.envs.wrappers.images:channels_last", "images (H, W, C) from (C, H, W)"),
    },
    group="kdcli.wrappers",
)
