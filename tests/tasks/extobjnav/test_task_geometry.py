"""Headings, the trial's frame, and their agreement with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memo_habitat.tasks.extobjnav.goals import (
    Pose,
    heading_to,
    horizontal_distance,
    in_frame,
    pitch_to,
    quaternion_of,
    wrap_angle,
)

ANGLES = st.floats(min_value=-20.0, max_value=20.0)
COORDINATES = st.floats(min_value=-50.0, max_value=50.0)


@pytest.mark.parametrize(
    ("target", "heading"),
    [
        ((0.0, 0.0, -1.0), 0.0),
        ((-1.0, 0.0, 0.0), math.pi / 2),
        ((1.0, 0.0, 0.0), -math.pi / 2),
        ((-1.0, 5.0, -1.0), math.pi / 4),
    ],
)
def test_heading_nought_looks_along_minus_z_and_grows_to_the_left(target, heading):
    assert heading_to(np.zeros(3), np.array(target)) == pytest.approx(heading)


def test_frame_counts_forward_and_left():
    origin = Pose(np.array([1.0, 0.0, 2.0]), math.pi / 2)  # looks along -x
    assert in_frame(origin, np.array([0.0, 0.0, 2.0])) == pytest.approx((1.0, 0.0))
    assert in_frame(origin, np.array([1.0, 0.0, 3.0])) == pytest.approx((0.0, 1.0))


@given(x=COORDINATES, z=COORDINATES, heading=ANGLES, length=st.floats(0.1, 10.0), turn=ANGLES)
def test_a_walk_along_a_relative_heading_ends_where_the_frame_says(x, z, heading, length, turn):
    origin = Pose(np.array([x, 0.3, z]), heading)
    direction = np.array([-math.sin(heading + turn), 0.0, -math.cos(heading + turn)])
    forward, left = in_frame(origin, origin.position + length * direction)
    assert forward == pytest.approx(length * math.cos(turn), abs=1e-6)
    assert left == pytest.approx(length * math.sin(turn), abs=1e-6)


@given(angle=ANGLES)
def test_wrapped_angles_are_the_same_direction_within_half_a_turn(angle):
    wrapped = wrap_angle(angle)
    assert -math.pi < wrapped <= math.pi
    assert math.cos(wrapped) == pytest.approx(math.cos(angle), abs=1e-9)
    assert math.sin(wrapped) == pytest.approx(math.sin(angle), abs=1e-9)


def test_half_a_turn_has_one_name():
    assert wrap_angle(math.pi) == wrap_angle(-math.pi) == pytest.approx(math.pi)


@given(heading=ANGLES)
def test_quaternion_turns_forward_onto_the_heading(heading):
    x, y, z, w = quaternion_of(heading)
    # Rotation of -Z by a quaternion about +Y.
    rotated = np.array([-2 * (x * z + w * y), 0.0, -(1 - 2 * (x * x + y * y))])
    assert wrap_angle(heading_to(np.zeros(3), rotated) - heading) == pytest.approx(0.0, abs=1e-6)


def test_pitch_is_positive_upwards_and_distance_ignores_height():
    assert pitch_to(np.array([0.0, 1.2, 0.0]), np.array([0.0, 0.2, 1.0])) == pytest.approx(
        -math.pi / 4
    )
    assert horizontal_distance(np.zeros(3), np.array([[3.0, 9.0, 4.0]])) == pytest.approx([5.0])
