"""What hypothesis draws: small settings, layouts whose cells often coincide, actions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from memo_habitat.tasks.dark_key.layouts import Setting

settings_drawn = st.builds(
    Setting,
    size=st.integers(2, 4),
    episode_steps=st.integers(1, 12),
    trial_steps=st.integers(1, 40),
)


@st.composite
def games(draw):
    """A setting, layouts [N, 3] for N trials, and actions [T, N] for a little more than a trial."""
    setting = draw(settings_drawn)
    count = draw(st.integers(1, 5))
    # Of a few cells only, so that start, key and door coincide in every way.
    few = draw(st.lists(st.integers(0, setting.cells - 1), min_size=1, max_size=3))
    layouts = draw(
        st.lists(st.tuples(*[st.sampled_from(few)] * 3), min_size=2 * count, max_size=2 * count)
    )
    steps = setting.trial_steps + draw(st.integers(0, 5))
    actions = np.random.default_rng(draw(st.integers(0, 2**32))).integers(5, size=(steps, count))
    # Standing still is what makes coinciding cells pay.
    actions[np.random.default_rng(0).random(actions.shape) < draw(st.floats(0, 0.8))] = 4
    return setting, np.array(layouts), actions
