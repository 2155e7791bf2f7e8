"""ONNX graphs of an acting policy answer as torch does, through segment ends and dropped tokens."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import memo_habitat as mh
from memo_habitat.errors import UserError
from memo_habitat.export.agent import Spaces
from memo_habitat.memory.kv_cache import KVCache
from tests.factories.policies import observation_space, random_observation, small_policy

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'memo-habitat[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'memo-habitat[onnx]'")

from memo_habitat.export.onnx_agent import OnnxAgent  # noqa: E402
from memo_habitat.export.onnx_graphs import export_onnx  # noqa: E402

TOLERANCE = 1e-4


class TorchSteps:
    """The same steps by the policy's own memory, on the CPU."""

    def __init__(self, policy: Any) -> None:
        self._network = policy.eval().network
        self._cache: KVCache = self._network.memory.new_cache(1, "cpu")

    @torch.no_grad()
    def step(
        self, observations: dict[str, torch.Tensor], previous: int, begins: bool
    ) -> tuple[np.ndarray, float]:
        """Logits [A] and value."""
        network = self._network
        if int(observations["trial_step"]) == 0:
            self._cache.reset(torch.tensor([True]))
            previous = 0
        taken, starts = torch.tensor([previous]), torch.tensor([begins])
        features = network.features(observations).float()
        token = network.tokens(features, observations, taken, starts)
        remembered = network.memory.step(token, self._cache, starts)
        heads = network.heads(remembered, observations, taken, starts)
        return heads.logits[0].numpy(), float(heads.values[0])


def largest_difference(
    agent: Any, folder: Path, steps: int, trial: int, observe: Any, every: int = 37
) -> float:
    """Of logits and values over `steps` steps, in trials and episodes of random lengths."""
    generator = torch.Generator().manual_seed(0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    theirs, ours = TorchSteps(agent.policy), OnnxAgent(folder, sess_options=options)
    worst, previous = 0.0, 0
    for step in range(steps):
        in_trial = step % trial
        begins = in_trial == 0 or step % every == 0
        observed = observe(1, in_trial, generator)
        if begins:
            ours.reset()
        logits, value = ours.step({name: x[0].numpy() for name, x in observed.items()})
        expected, worth = theirs.step(observed, previous, begins)
        worst = max(worst, float(np.abs(logits - expected).max()), abs(value - worth))
        previous = int(expected.argmax())
        ours.took(previous)
    return worst


def small_agent(kind: str, budget: int = 0, trial_steps: int = 60, **memory: Any) -> Any:
    """A policy of random weights as `load_agent` gives a trained one."""
    torch.manual_seed(0)
    policy = small_policy(kind, "blind", token_budget=budget, **memory)
    with torch.no_grad():  # or every logit is nearly 0
        policy.network.actor.weight.mul_(100)
    sensors = {
        name: {"shape": box.shape, "dtype": box.dtype.name, "low": None, "high": None}
        for name, box in observation_space().spaces.items()
    }
    spaces = Spaces(observations=sensors, actions=["stop", "forward", "left", "right"])
    config = OmegaConf.create(
        {
            "habitat": {
                "task": {"trial_steps": trial_steps},
                "environment": {"max_episode_steps": 40},
            },
            "habitat_baselines": {"rl": {"memory": {"kind": kind}, "encoder": {"kind": "blind"}}},
        }
    )
    return SimpleNamespace(policy=policy, spaces=spaces, config=config, transforms=[])


@pytest.mark.slow
@pytest.mark.parametrize(
    # With a budget, memo is the agent that ships, below; of rmt one summary stays instead.
    ("kind", "budget"),
    [("memo", 0), ("rmt", 0), ("no_iea", 0), ("fct", 12)],
)
def test_every_kind_of_transformer(tmp_path, kind, budget):
    agent = small_agent(kind, budget)
    export_onnx(agent, tmp_path)
    assert largest_difference(agent, tmp_path, 150, 60, random_observation) < TOLERANCE


@pytest.mark.slow
def test_the_agent_that_ships_over_2000_steps_through_segment_ends(tmp_path, checkout):
    """29 segments of 64 steps, the budget of 400 tokens in use from the third on; two trials."""
    agent = mh.load_agent(checkout / "data/agents/recall")
    export_onnx(agent, tmp_path)

    def observe(number, trial_step, generator):
        found = {
            name: 0.5 * torch.randn(number, *sensor.shape, generator=generator)
            for name, sensor in agent.spaces.observations.items()
        }
        # Some categories are in view, and one is sought, as the task tells it.
        found["detections"][..., 0] = 1.0
        found["detections"] *= torch.rand(number, 20, 1, generator=generator) < 0.1
        target = torch.randint(20, (number,), generator=generator)
        found["one_hot_target_sensor"] = torch.eye(20)[target]
        return {**found, "trial_step": torch.full((number, 1), trial_step)}

    assert largest_difference(agent, tmp_path, 2000, 1500, observe) < TOLERANCE
    # On a robot there is neither torch nor this package.
    spec = importlib.util.find_spec("onnxruntime")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['memo_habitat'] = None\n"
        "import numpy as np\nfrom onnx_agent import OnnxAgent\n"
        "agent = OnnxAgent('.', seed=0)\n"
        "zeros = {n: np.zeros(s['shape']) for n, s in agent.numbers['observations'].items()}\n"
        "print(len({agent.act({**zeros, 'trial_step': i}) for i in range(130)}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert spec is not None and done.returncode == 0, done.stderr
    assert int(done.stdout) > 1  # sampled, hence not always the same


@pytest.mark.slow
def test_a_trial_longer_than_the_graphs_were_made_for_is_an_error(tmp_path):
    export_onnx(small_agent("memo", trial_steps=60), tmp_path)
    ours, generator = OnnxAgent(tmp_path), torch.Generator().manual_seed(0)
    taken = 0
    with pytest.raises(RuntimeError, match="larger --onnx-steps"):
        for taken in range(200):
            observed = random_observation(1, taken, generator)
            ours.step({name: x[0].numpy() for name, x in observed.items()})
            ours.took(0)
    assert 60 <= taken < 100


def test_a_memory_without_a_graph_is_refused(tmp_path):
    with pytest.raises(UserError, match="transformers, and this is 'lstm'"):
        export_onnx(small_agent("lstm"), tmp_path)
    with pytest.raises(UserError, match="top_k=2"):
        export_onnx(small_agent("memo", top_k=2), tmp_path)
    agent = small_agent("memo")
    agent.transforms.append(torch.nn.Identity())
    with pytest.raises(UserError, match="sees through Identity"):
        export_onnx(agent, tmp_path)
