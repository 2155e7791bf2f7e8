"""tools/bench/sim.py gives a row per image size."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_there_is_a_row_per_image_size(bench):
    rows = bench("sim", "--seconds", "0.01", "--sizes", "8", "16")
    assert [row["size"] for row in rows] == [8, 16]
    for row in rows:
        assert row["sensors"] == ["rgb", "panoptic"]
        assert row["frames_per_second"] > 0 and row["env_steps_per_second"] > 0
        assert row["triangles"] > 100 and row["scene_load_ms"] > 0
