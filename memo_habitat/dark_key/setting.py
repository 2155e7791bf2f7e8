"""How large the grid is and how long episodes and trials are."""

from __future__ import annotations

from dataclasses import dataclass

from memo_habitat.errors import UserError


@dataclass(frozen=True)
class Setting:
    """One setting of Dark-Key-To-Door.

    Attributes:
        size: cells along each side of the grid.
        episode_steps: steps after which an episode ends without the door.
        trial_steps: steps of a trial, however many episodes they make.
    """

    size: int = 9
    episode_steps: int = 50
    trial_steps: int = 500

    def __post_init__(self) -> None:
        for name, least in (("size", 2), ("episode_steps", 1), ("trial_steps", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(
                    f"{name} of Dark-Key-To-Door is {value!r}; give a whole number from {least} on"
                )

    @property
    def cells(self) -> int:
        """Cells of the grid; cell `y * size + x` is the one at (x, y)."""
        return self.size * self.size


# The longest of all shortest episodes takes 4 * (size - 1) steps. The time limit is 50 / 32 of that
# at every size, so that the settings differ in the length of the way and not in how tight time is.
SETTINGS: dict[str, Setting] = {
    "quick": Setting(size=5, episode_steps=25, trial_steps=150),
    "default": Setting(size=9, episode_steps=50, trial_steps=500),
    "hard": Setting(size=13, episode_steps=75, trial_steps=1000),
}
