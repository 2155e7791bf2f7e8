"""Transformer memories for agents that act over very long trials, in pure torch.

memory = build(MemoryConfig(kind="memo"))
outputs = memory(tokens)                      # training: [B, T, D] -> [B, T, D]
cache = memory.new_cache(batch, "cpu")        # acting: N environments in lockstep
output = memory.step(tokens_now, cache)       # [N, D] -> [N, D]

Read `memo` first, then `attention` and `kv_cache`; `interface` has the legend of the shapes.
"""

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.interface import ActingCache, MemoryOutput, TrialMemory
from memo_habitat.memory.memo import MemoTransformer, build
from memo_habitat.memory.recurrent import RecurrentMemory, StateCache
from memo_habitat.memory.variants import register

__all__ = [
    "ActingCache",
    "MemoTransformer",
    "MemoryConfig",
    "MemoryOutput",
    "RecurrentMemory",
    "StateCache",
    "TrialMemory",
    "build",
    "register",
]
