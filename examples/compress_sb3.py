# %% [markdown]
# # Compress an agent right after training
# Train PPO with Stable-Baselines3, compress the model in memory, and use the student in place of the teacher.

# %%
import gymnasium
from stable_baselines3 import PPO

import kdcli

env = gymnasium.make("CartPole-v1")
model = PPO("MlpPolicy", env, n_steps=256, seed=0, device="cpu").learn(12_000)

# %%
result = kdcli.compress(model, env, budget="30s", episodes=50)
result

# %% [markdown]
# The student has Stable-Baselines3's `predict`.

# %%
obs, _ = env.reset(seed=0)
total, done = 0.0, False
while not done:
    action, _ = result.student.predict(obs, deterministic=True)
    obs, reward, terminated, truncated, _ = env.step(action)
    total, done = total + float(reward), terminated or truncated
total

# %%
result.student.save("student.safetensors", force=True)
result.exported.save("student.onnx", force=True)
