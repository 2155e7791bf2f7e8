"""Pictures against what geometry says they must show."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.camera_rig import Camera, CameraSpec, ray_directions
from memo_habitat.simulator.embree.geometry import Geometry, pyramid
from memo_habitat.simulator.embree.sim import EmbreeSim
from memo_habitat.testing.tasks import simulator_config
from tests.factories.houses import (
    ARRANGEMENTS,
    CEILING,
    FURNITURE_CENTER,
    FURNITURE_EXTENTS,
    HALF_X,
    HALF_Z,
    OBJECT_SIZE,
    WALL,
)

EYE = 1.2
DATASET = "data/apartments/apartments.scene_dataset_config.json"
APARTMENTS = Path(__file__).parents[2] / "data/apartments/episodes/train.json.gz"


def see(sim, position, heading):
    sim.start_next_episode_at(np.array(position, dtype=float), heading)
    return sim.reset()


def rays(size, heading):
    directions = ray_directions(CameraSpec(size, size, math.pi / 2, (0, EYE, 0), (0, 0, 0)))
    c, s = math.cos(heading), math.sin(heading)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return directions.astype(np.float64) @ turn.T


def box_depth(eye, directions, center, extents):
    """Distance along each ray to an axis-aligned box, inf where it misses."""
    low, high = np.array(center) - np.array(extents) / 2, np.array(center) + np.array(extents) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (low - eye) / directions, (high - eye) / directions
    near, far = np.minimum(a, b).max(axis=1), np.maximum(a, b).min(axis=1)
    return np.where((near <= far) & (far > 0), np.maximum(near, 0), np.inf)


def room_depth(eye, directions, low, high):
    """Distance along each ray to the walls of a room seen from inside."""
    with np.errstate(divide="ignore"):
        hits = np.where(directions > 0, (high - eye) / directions, (low - eye) / directions)
    return hits.min(axis=1)


def test_depth_is_the_planar_distance_to_the_walls(sim):
    eye = np.array([2.0, EYE, 0.0])
    observations = see(sim, [2.0, 0.0, 0.0], 0.0)
    expected = room_depth(
        eye,
        rays(64, 0.0),
        np.array([WALL / 2, 0, -HALF_Z]),
        np.array([HALF_X, CEILING, HALF_Z]),
    )
    assert observations["head_depth"].shape == (64, 64, 1)
    assert observations["head_depth"].dtype == np.float32
    np.testing.assert_allclose(observations["head_depth"].ravel(), expected, atol=1e-4)


def test_panoptic_ids_are_exactly_the_pixels_whose_ray_meets_the_box_first(sim):
    # From here the counter and the cube on it are in view, and nothing else.
    heading = math.pi
    observations = see(sim, [-2.3, 0.0, -1.0], heading)
    eye, directions = np.array([-2.3, EYE, -1.0]), rays(64, heading)
    counter = box_depth(eye, directions, FURNITURE_CENTER, FURNITURE_EXTENTS)
    cube = box_depth(eye, directions, ARRANGEMENTS[0][2][1], (OBJECT_SIZE,) * 3)
    expected = np.where(cube < counter, 102, np.where(counter < np.inf, 1, 0))
    panoptic = observations["head_panoptic"]
    assert panoptic.shape == (64, 64, 1) and panoptic.dtype == np.int32
    assert (expected == 102).sum() > 20 and (expected == 1).sum() > 100
    # A ray along an edge may go either way.
    assert (panoptic.ravel() != expected).mean() < 0.003


def test_visible_pixels_count_the_instance_in_the_latest_image(sim):
    observations = see(sim, [-2.3, 0.0, -1.0], math.pi)
    count = int((observations["head_panoptic"] == 102).sum())
    assert sim.visible_pixels([102], "head_rgb")[0] == count > 0
    sim.step(2)
    sim.step(2)
    sim.step(2)
    assert sim.visible_pixels([102], "head_rgb")[0] == 0


def test_visible_pixels_need_neither_a_semantic_sensor_nor_a_second_ray_cast(make_sim, monkeypatch):
    sim = make_sim(sensors=("rgb",))
    casts = []
    cast = Geometry.cast
    monkeypatch.setattr(Geometry, "cast", lambda *args: (casts.append(1), cast(*args))[1])
    see(sim, [-2.3, 0.0, -1.0], math.pi)
    assert sim.visible_pixels([102], "head_rgb")[0] > 0
    assert len(casts) == 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [48, 128])
def test_visible_pixels_without_an_image_are_those_of_the_panoptic_image(size):
    document = json.loads(gzip.decompress(APARTMENTS.read_bytes()))
    rng = np.random.default_rng(size)
    shown = 0
    for episode in document["episodes"][::12]:
        drawn, blind = (
            EmbreeSim(simulator_config(episode["scene_id"], DATASET, size, ("panoptic",), **more))
            for more in ({}, {"render_images": False})
        )
        for sim in (drawn, blind):
            sim.reconfigure(sim.habitat_config, SimpleNamespace(**episode))
        ids = [instance.id for instance in blind.instances]
        for number in range(60):
            point, heading = drawn.sample_floor_point(rng), float(rng.uniform(-3.0, 3.0))
            for sim in (drawn, blind):
                sim.start_next_episode_at(point, heading)
                sim.reset()
                sim.look(math.radians(30 * (number % 5 - 2)))
            image = drawn.render("head_panoptic")
            expected = [int((image == identity).sum()) for identity in ids]
            assert blind.visible_pixels(ids, "head_panoptic").tolist() == expected
            shown += sum(expected)
    assert shown > 1000


def test_cameras_that_are_not_observed_draw_nothing_until_they_are_asked(make_sim, monkeypatch):
    seeing, blind = make_sim(sensors=("rgb",)), make_sim(sensors=("rgb",), render_images=False)
    casts = []
    cast = Geometry.cast
    expected = see(seeing, [-2.3, 0.0, -1.0], math.pi)["head_rgb"]
    monkeypatch.setattr(Geometry, "cast", lambda *args: (casts.append(1), cast(*args))[1])
    assert see(blind, [-2.3, 0.0, -1.0], math.pi) == {}
    assert not blind.sensor_suite.observation_spaces.spaces
    assert not casts
    np.testing.assert_array_equal(blind.render("head_rgb"), expected)


def test_sensors_with_one_spec_share_one_ray_cast(sim, monkeypatch):
    casts = []
    cast = Geometry.cast
    monkeypatch.setattr(Geometry, "cast", lambda *args: (casts.append(1), cast(*args))[1])
    see(sim, [1.0, 0.0, 0.0], 0.3)
    assert len(casts) == 1
    sim.step(None)  # nothing moved: the same picture
    assert len(casts) == 1


def test_colours_are_the_objects_own_and_faces_differ(sim):
    observations = see(sim, [-2.3, 0.0, -1.0], math.pi)
    ids = observations["head_panoptic"][..., 0]
    red, green, blue = observations["head_rgb"][ids == 102].reshape(-1, 3).T.astype(int)
    assert (red > 3 * green).all() and (red > 3 * blue).all()
    lights = {tuple(colour) for colour in observations["head_rgb"][ids == 102] // 16}
    assert len(lights) >= 2  # top and front of the cube


def test_flat_shaded_every_face_has_the_objects_own_colour_at_any_distance(make_sim):
    sim = make_sim(sensors=("rgb", "panoptic"), flat_shading=True)
    for position in ([-2.3, 0.0, -1.0], [-2.3, 0.0, -0.2]):
        observations = see(sim, position, math.pi)
        ids = observations["head_panoptic"][..., 0]
        colours = observations["head_rgb"][ids == 102].astype(int)
        assert len(colours) and np.abs(colours - (220, 30, 30)).max() <= 1


def test_the_floor_shows_its_texture_in_the_right_places(sim):
    observations = see(sim, [2.0, 0.0, 1.5], 0.0)
    rgb = observations["head_rgb"].astype(int)
    eye, directions = np.array([2.0, EYE, 1.5]), rays(64, 0.0)
    down = directions[:, 1] < -0.75
    points = eye + directions * (EYE / -directions[:, 1])[:, None]
    u, v = points[:, 0] / 4.0, points[:, 2] / 4.0  # as written by the fixture; v points up
    square = np.floor(u * 8).astype(int) + np.floor(-v * 8).astype(int)
    away = (np.abs((u * 8) % 1 - 0.5) < 0.4) & (np.abs((v * 8) % 1 - 0.5) < 0.4)
    wanted = square % 2 == 0
    bright = rgb.sum(axis=2).ravel() > 300
    chosen = down & away
    assert chosen.sum() > 100
    assert (bright == wanted)[chosen].mean() in (0.0, 1.0) or (bright == wanted)[chosen].all()
    assert (bright == wanted)[chosen].all()


def test_far_textures_are_averaged():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 200
    levels = pyramid(stripes)
    assert [level.shape[:2] for level in levels] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert (levels[1] == 100).all()


def test_mount_and_tilt_turn_the_camera(sim):
    # 1.2 m above the floor, looking 60 degrees down: the middle ray meets it at 1.2 / sin 60.
    see(sim, [2.0, 0.0, 0.0], 0.0)
    sim.step(5)
    observations = sim.step(5)
    middle = observations["head_depth"][31:33, 31:33].mean()
    assert middle == pytest.approx(EYE / math.sin(math.pi / 3), rel=0.02)


def test_orientation_of_the_config_pitches_the_camera(sim):
    tilted = Camera(CameraSpec(9, 9, math.pi / 2, (0, EYE, 0), (-math.pi / 2, 0, 0)))
    tilted.cast(sim.arrangement.geometry, (np.array([2.0, 0.0, -0.6]), 0.0, 0.0))
    np.testing.assert_allclose(tilted.depth(), EYE, atol=1e-4)


def test_a_wide_image_keeps_square_pixels():
    directions = ray_directions(CameraSpec(32, 64, math.pi / 2, (0, 0, 0), (0, 0, 0))).reshape(
        32, 64, 3
    )
    step_x = directions[0, 1, 0] - directions[0, 0, 0]
    step_y = directions[0, 0, 1] - directions[1, 0, 1]
    assert step_x == pytest.approx(step_y, rel=1e-5)


def test_nothing_hit_is_black_at_depth_zero():
    camera = Camera(CameraSpec(4, 4, math.pi / 2, (0, 0, 0), (0, 0, 0)))
    camera.cast(Geometry([], []), (np.zeros(3), 0.0, 0.0))
    assert not camera.rgb().any() and not camera.depth().any() and not camera.panoptic().any()


def test_pictures_already_handed_out_do_not_change(sim):
    first = see(sim, [2.0, 0.0, 0.0], 0.0)
    copies = {name: picture.copy() for name, picture in first.items()}
    for action in (1, 2, 1, 3):
        sim.step(action)
    for name, picture in first.items():
        np.testing.assert_array_equal(picture, copies[name])


def test_impossible_cameras_are_refused():
    with pytest.raises(UserError, match="180"):
        CameraSpec(4, 4, math.pi, (0, 0, 0), (0, 0, 0))
    with pytest.raises(UserError, match=">= 1"):
        CameraSpec(0, 4, 1.0, (0, 0, 0), (0, 0, 0))
