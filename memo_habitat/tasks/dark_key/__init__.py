"""Dark-Key-To-Door: a grid world whose every trial can be learned by heart.

Importing this package takes no time: Gymnasium before 1.0 calls `register` itself, through the
entry point in the group `gymnasium.envs`. Later ones have no plugins: there the import of
`memo_habitat.tasks.dark_key.gymnasium_env` does it.
"""

from __future__ import annotations

NAME = "memo_habitat/DarkKeyToDoor-v0"


def register() -> None:
    """Register the environment with Gymnasium, once however often it is called."""
    from gymnasium.envs import registration

    if NAME not in registration.registry:
        registration.register(
            NAME, entry_point="memo_habitat.tasks.dark_key.gymnasium_env:DarkKeyToDoorEnv"
        )
