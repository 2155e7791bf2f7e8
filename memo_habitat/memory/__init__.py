"""Transformer memories for agents that act over very long trials, in pure torch.

memory = build(MemoryConfig(kind="memo"))
outputs = memory(tokens)                      # training: [B, T, D] -> [B, T, D]
cache = memory.new_cache(batch, "cpu")        # acting: N environments in lockstep
output = memory.step(tokens_now, cache)       # [N, D] -> [N, D]
"""

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.cache import Cache
from memo_habitat.memory.stack import Memory, build
from memo_habitat.memory.variants import register

__all__ = ["Cache", "Memory", "MemoryConfig", "build", "register"]
