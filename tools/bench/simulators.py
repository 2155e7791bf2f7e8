"""Both simulators of ExtObjNav side by side: how far they agree, and how fast they are.

    python tools/bench/simulators.py --out docs/results/simulators --houses 1 --steps 150

Needs Habitat-Sim. Writes agreement.json and one picture of views from the same places.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from memo_habitat.simulator.habitat_sim.device import has_nvidia_gpu, keep_triton_away

if not has_nvidia_gpu():
    keep_triton_away()  # before torch and Habitat are imported

import habitat
from habitat.sims import make_sim

import memo_habitat.register  # noqa: F401
from memo_habitat.config.task import ExtObjNavTaskConfig
from memo_habitat.simulator.interface import TaskSimulator, task_simulator
from memo_habitat.tasks.extobjnav.dataset import read_split
from memo_habitat.tasks.extobjnav.goals import GoalOptions, find_goals, horizontal_distance
from memo_habitat.testing.tasks import simulator_config, task_config

SIMULATORS = ("EmbreeSim-v0", "ExtObjNavSim-v0")
FORWARD, LEFT, RIGHT, UP, DOWN = 1, 2, 3, 4, 5
ALL = ("rgb", "depth", "panoptic")


def config_of(kind: str, episode: Any, **changes: Any) -> Any:
    """A `habitat.simulator` node in the house of an episode."""
    if kind == "ExtObjNavSim-v0":
        changes = {"image_based_lighting": False, **changes}
    agent = {"agent_height": 1.2, "agent_radius": 0.2}
    changes = {"type": kind, **agent, **changes}
    return simulator_config(episode.scene_id, episode.scene_dataset_config, **changes)


def entered(kind: str, episode: Any, **changes: Any) -> Any:
    """A simulator in the house of an episode with its objects."""
    config = config_of(kind, episode, **changes)
    sim = make_sim(kind, config=config)
    sim.reconfigure(config, episode)
    return sim


def look(sim: Any, position: np.ndarray, heading: float, floor: float) -> dict[str, np.ndarray]:
    """Pictures from a place whose floor is at the height `floor`, m."""
    place = np.array([position[0], floor, position[2]])
    task_simulator(sim).start_next_episode_at(place, heading)
    return {name: np.array(value) for name, value in sim.reset().items()}


def answers(kind: str, episode: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """What one simulator says of everything that is compared."""
    sim = entered(kind, episode)
    task = task_simulator(sim)
    rng = np.random.default_rng(0)
    if not asked:
        asked["poses"] = [
            (task.sample_floor_point(rng), float(rng.uniform(-math.pi, math.pi))) for _ in range(12)
        ]
        asked["pairs"] = [
            (task.sample_floor_point(rng), task.sample_floor_point(rng)) for _ in range(200)
        ]
        asked["start"] = task.sample_floor_point(rng)
        asked["blind"] = rng.choice([1, 1, 1, 1, 2, 3, 4, 5], size=500).tolist()
        asked["clear"] = clear_of_walls(sim, asked["start"], rng)
    given: dict[str, Any] = {}
    given["distances"] = [task.distance_to(a, b[None]) for a, b in asked["pairs"]]
    given["centres"] = np.array([i.position for i in task.instances])
    begin = time.perf_counter()
    given["goals"] = find_goals(task, GoalOptions.of(ExtObjNavTaskConfig()))
    given["goals_s"] = time.perf_counter() - begin
    given["points"] = np.array([task.sample_floor_point(rng) for _ in range(1000)])
    for name in ("clear", "blind"):
        task.start_next_episode_at(asked["start"], 0.0)
        sim.reset()
        path, found, collisions = [], [], 0
        for action in asked[name]:
            sim.step(action)
            path.append(task.agent_pose()[0][[0, 2]])
            found.append(found_by_a_stop(task))
            collisions += bool(sim.previous_step_collided)
        given[name] = {"path": np.array(path), "collisions": collisions, "found": found}
    given["top"] = task.top_down_map(0.05)
    sim.close()
    given["views"] = views(kind, episode, asked["poses"])
    if kind == "EmbreeSim-v0":
        given["flat_views"] = views(kind, episode, asked["poses"], flat_shading=True)
    return given


def found_by_a_stop(task: TaskSimulator) -> frozenset[str]:
    """The categories of which a stop here and now would be a success."""
    rules = ExtObjNavTaskConfig()
    position = task.agent_pose()[0]
    apart = horizontal_distance(position, np.array([i.position for i in task.instances]))
    near = [task.instances[index] for index in np.flatnonzero(apart <= rules.success_distance)]
    pixels = task.visible_pixels([instance.id for instance in near], "head_rgb")
    seen = np.asarray(pixels) >= rules.min_visible_pixels
    return frozenset(i.category for i, is_seen in zip(near, seen, strict=True) if is_seen)


def views(kind: str, episode: Any, poses: list[Any], **changes: Any) -> list[dict[str, np.ndarray]]:
    """Pictures of all cameras from each pose."""
    sim = entered(kind, episode, size=256, sensors=ALL, **changes)
    seen = [look(sim, position, heading, floor=0.0) for position, heading in poses]
    sim.close()
    return seen


def clear_of_walls(sim: Any, start: np.ndarray, rng: np.random.Generator) -> list[int]:
    """500 actions that walk about without touching anything."""
    task_simulator(sim).start_next_episode_at(start, 0.0)
    sim.reset()
    actions: list[int] = []
    while len(actions) < 500:
        action = int(rng.choice([1, 1, 1, 1, 2, 3, 4, 5]))
        position, heading = sim.agent_pose()
        ahead = position + 0.25 * np.array([-math.sin(heading), 0.0, -math.cos(heading)])
        if action == FORWARD and sim.distance_to_closest_obstacle(ahead) < 0.35:
            action = LEFT
        sim.step(action)
        actions.append(action)
    return actions


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two sets of viewpoints."""
    first, second = (
        {tuple(cell) for cell in np.rint(points[:, [0, 2]] / 0.1).astype(int).tolist()}
        for points in (a, b)
    )
    return len(first & second) / max(len(first | second), 1)


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Figures of agreement."""
    depths = [
        np.abs(a["head_depth"] - b["head_depth"]).ravel()
        for a, b in zip(ours["views"], theirs["views"], strict=True)
    ]
    depth = np.concatenate(depths)
    ids = [
        (a["head_panoptic"] == b["head_panoptic"]).mean()
        for a, b in zip(ours["views"], theirs["views"], strict=True)
    ]
    colour, flat = (colours_apart(ours[name], theirs["views"]) for name in ("views", "flat_views"))
    a, b = np.array(ours["distances"]), np.array(theirs["distances"])
    gap = np.abs(a - b)
    both = np.isfinite(a) & np.isfinite(b)
    reachable = [
        sorted(name for name, goals in given["goals"].items() if goals.reachable)
        for given in (ours, theirs)
    ]
    return {
        "depth_difference_m": {
            "median": float(np.median(depth)),
            "p99": float(np.percentile(depth, 99)),
            "share_over_2_cm": float((depth > 0.02).mean()),
        },
        "ids_equal": float(np.mean(ids)),
        "colour_difference": float(colour.mean()),
        "colour_difference_flat_shading": float(flat.mean()),
        "colour_flat_shading_within_4": float((flat <= 4).mean()),
        "centre_difference_m": float(np.abs(ours["centres"] - theirs["centres"]).max()),
        "distance_ratio": float(np.median(b[both] / np.maximum(a[both], 1e-9))),
        "distance_p95_m": float(np.percentile(gap[both], 95)),
        "distance_worst_m": float(gap[both].max()),
        "distance_within_3_percent_or_15_cm": float(
            ((gap <= 0.15) | (gap <= 0.03 * a))[both].mean()
        ),
        "distance_finite_in_both": float(both.mean()),
        "reachable_equal": reachable[0] == reachable[1],
        "reachable": reachable[0],
        "viewpoint_overlap": {
            name: round(overlap(ours["goals"][name].viewpoints, goals.viewpoints), 3)
            for name, goals in theirs["goals"].items()
        },
        "viewpoints_found_in_s": [ours["goals_s"], theirs["goals_s"]],
        "walk_clear_of_walls": walks(ours["clear"], theirs["clear"]),
        "blind_walk": walks(ours["blind"], theirs["blind"]),
        "floor_m2": [float(given["top"].free.sum() * 0.05**2) for given in (ours, theirs)],
    }


def colours_apart(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> np.ndarray:
    """Differences of all colours, of 255."""
    pairs = zip(ours, theirs, strict=True)
    return np.abs(np.array([a["head_rgb"].astype(int) - b["head_rgb"] for a, b in pairs]))


def walks(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """How far the same 500 actions lead apart."""
    apart = np.linalg.norm(ours["path"] - theirs["path"], axis=1)
    return {
        "apart_at_end_m": float(apart[-1]),
        "apart_at_most_m": float(apart.max()),
        "first_apart_5_cm": int(np.argmax(apart > 0.05)) if (apart > 0.05).any() else None,
        "collisions": [ours["collisions"], theirs["collisions"]],
        "found_at_end": [sorted(walk["found"][-1]) for walk in (ours, theirs)],
        "stops_that_would_succeed": [sum(map(bool, walk["found"])) for walk in (ours, theirs)],
        "stops_with_the_same_success": float(
            np.mean([a == b for a, b in zip(ours["found"], theirs["found"], strict=True)])
        ),
    }


def speed(kind: str, data: Path, size: int, steps: int) -> dict[str, Any]:
    """Steps a second of the whole task, image and all measures included."""
    overrides: dict[str, Any] = {"dataset.split": "test", "task.trial_steps": 100_000}
    if kind == "ExtObjNavSim-v0":
        overrides["simulator.image_based_lighting"] = False
    config = task_config(data, kind, image_size=size, overrides=overrides)
    rng = np.random.default_rng(0)
    actions = rng.choice([1, 1, 1, 1, 2, 3, 4, 5], size=2 * steps).tolist()
    with habitat.Env(config) as env:
        env.reset()
        for action in actions[:30]:
            env.step(action)
        begin, cpu = time.perf_counter(), time.process_time()
        for action in actions[:steps]:
            if env.episode_over:
                env.reset()
            env.step(action)
        return {
            "simulator": kind,
            "image": size,
            "steps_per_s": round(steps / (time.perf_counter() - begin), 1),
            "steps_per_cpu_s": round(steps / (time.process_time() - cpu), 1),
        }


def picture(given: list[dict[str, Any]], count: int) -> Image.Image:
    """Views of EmbreeSim, the same with flat shading, and Habitat-Sim, one above the other."""
    shown = given[0]["views"], given[0]["flat_views"], given[1]["views"]
    rows = [np.concatenate([v["head_rgb"] for v in views[:count]], axis=1) for views in shown]
    return Image.fromarray(np.concatenate(rows))


def main() -> None:
    """Compare in one house of each episode file, then time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data/apartments/episodes/test.json.gz")
    parser.add_argument("--houses", type=int, default=2)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = Path(options.data).resolve()
    _, episodes = read_split(data)
    houses = {episode.scene_id: episode for episode in episodes}
    results: dict[str, Any] = {"agreement": {}, "speed": []}
    for number, (scene, episode) in enumerate(list(houses.items())[: options.houses]):
        asked: dict[str, Any] = {}
        given = [answers(kind, episode, asked) for kind in SIMULATORS]
        results["agreement"][Path(scene).name] = compare(*given)
        print(json.dumps(results["agreement"][Path(scene).name], indent=1), flush=True)
        if number == 0:
            picture(given, 4).save(options.out / "views.png")
    for size in (64, 256) if options.steps else ():
        for kind in SIMULATORS:
            results["speed"].append(speed(kind, data, size, options.steps))
            print(json.dumps(results["speed"][-1]), flush=True)
    (options.out / "agreement.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
