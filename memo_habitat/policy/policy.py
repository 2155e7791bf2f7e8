"""The policy that Habitat-Baselines acts with: the network together with its acting memory."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import Any

import torch
from gym import spaces
from habitat_baselines.common.baseline_registry import baseline_registry
from habitat_baselines.rl.ppo.policy import Policy, PolicyActionData
from habitat_baselines.utils.common import get_num_actions
from torch import Tensor, nn

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.config.policy import PRECISIONS, EncoderConfig
from memo_habitat.config.task import action_names
from memo_habitat.errors import UserError, check_choice
from memo_habitat.memory.interface import ActingCache
from memo_habitat.memory.static_step import compiled
from memo_habitat.memory.variants import takes
from memo_habitat.policy.detection_encoder import DETECTIONS
from memo_habitat.policy.network import TRIAL_STEP, ContextUse, MemoNetwork
from memo_habitat.rollout.batch import TrialBatch
from memo_habitat.rollout.storage import TrialStorage


def _initial_stop(config: Any) -> tuple[int, float] | None:
    """Index of the action `stop`, and its logit at the beginning, if there is to be one."""
    bias = config.habitat_baselines.rl.initial_stop_bias
    if not bias:
        return None
    actions = action_names(config)
    if "stop" not in actions:
        raise UserError(
            f"habitat_baselines.rl.initial_stop_bias={bias}: this task has no action stop, only "
            f"{', '.join(actions) or 'numbers'}; leave it at 0"
        )
    return actions.index("stop"), float(bias)


# Steps, on average, for which a teacher that has the lead keeps it.
_LEAD = 30


@dataclass(frozen=True)
class ActionEvaluation:
    """What the losses need of the steps that enter them; None where the policy has no such part."""

    log_probs: Tensor  # [B, t - loss_start] of the actions taken
    values: Tensor  # [B, t - loss_start]
    entropy: Tensor  # [B, t - loss_start]
    auxiliary_logits: Tensor | None  # [B, t - loss_start, W] of the auxiliary sensor
    memory_loss: Tensor | None  # [] of the memory itself, unweighted, over all steps
    teacher_log_probs: Tensor | None  # [B, t - loss_start] of the teacher's actions
    recall_loss: Tensor | None  # [] unweighted
    recall_parts: dict[str, float]  # by name


def sample_action(log_probs: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """An action of each distribution [*, A], long [*]; a `generator` is one of the CPU's.

    A race of exponential clocks: the one of rate p rings first with probability p. `Categorical`
    draws alike, but checks its arguments in every step.
    """
    if generator is None:
        clocks = torch.empty_like(log_probs).exponential_()
    else:  # drawn on the CPU, where the same seed gives the same draws beside any device
        clocks = torch.empty(log_probs.shape).exponential_(generator=generator).to(log_probs)
    return (log_probs.exp() / clocks).argmax(-1)


@baseline_registry.register_policy(name="MemoPolicy")
class MemoPolicy(nn.Module, Policy):
    """Acts N environments in lockstep; the memory of each is emptied where its trial begins.

    With the precision "bfloat16" the image encoder and the memory run under autocast. Tokens and
    heads are computed in float32: bfloat16 would round a position by centimetres, and
    log-probabilities by more than PPO clips at.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Space,
        encoder: EncoderConfig,
        memory: MemoryConfig,
        precision: str = "float32",
        stop: tuple[int, float] | None = None,
        reach: float = 2.0,
    ) -> None:
        """Make a policy.

        Args:
            observation_space, action_space: of one environment.
            encoder, memory: sizes and options.
            precision: one of `PRECISIONS`.
            stop: that action's index and its logit before training.
            reach: m up to which a stop succeeds, for what is asked in hindsight.
        """
        nn.Module.__init__(self)
        Policy.__init__(self, action_space)
        check_choice("habitat_baselines.rl.precision", precision, PRECISIONS)
        self._low_precision = precision == "bfloat16"
        self.reach = reach
        if TRIAL_STEP not in observation_space.spaces:
            raise UserError(
                f"the memo policy needs the sensor {TRIAL_STEP!r}, which is not observed; "
                f"there are: {', '.join(sorted(observation_space.spaces))}"
            )
        self.network = MemoNetwork(
            observation_space, get_num_actions(action_space), encoder, memory
        )
        if stop is not None:
            with torch.no_grad():
                self.network.actor.bias[stop[0]] = stop[1]
        #: Observation (uuid) that is imitated in training, and the share of steps in which it
        #: acts, see `learn_from`.
        self.teacher: str | None = None
        self.teacher_share = 0.0
        #: Where the teacher acts at the moment, bool [N]; drawn where it is None.
        self.led: Tensor | None = None
        self._observed = sorted(observation_space.spaces)
        self._cache: ActingCache | None = None
        # Of the trials under way, where it was drawn for them; None: S, as in every evaluation.
        self._segment_length: int | None = None

    @classmethod
    def from_config(
        cls, config: Any, observation_space: spaces.Dict, action_space: spaces.Space, **kwargs: Any
    ) -> MemoPolicy:
        """Build the policy from the composed config, as Habitat calls it."""
        rl = config.habitat_baselines.rl
        encoder = EncoderConfig(**rl.encoder)
        memory = MemoryConfig(**dict(rl.memory))
        given: dict[str, Any] = {"stop": _initial_stop(config)}
        if "success_distance" in config.habitat.task:  # which grids have not
            given["reach"] = float(config.habitat.task.success_distance)
        return cls(observation_space, action_space, encoder, memory, rl.precision, **given)

    def learn_from(self, teacher: str | None, share: float) -> None:
        """From now on imitate an observation (uuid), which acts in `share` of the steps.

        UserError where there is no such observation.
        """
        if teacher is not None and teacher not in self._observed:
            raise UserError(
                f"habitat_baselines.rl.ppo.teacher={teacher!r} is not observed: add its sensor, "
                "such as perfect_memory_action_sensor, to habitat.task.lab_sensors, or do without "
                "a teacher by habitat_baselines.rl.ppo.imitation_coef=0; there are "
                f"{', '.join(self._observed)}"
            )
        self.teacher, self.teacher_share = teacher, share

    # Segments -----------------------------------------------------------------------------------

    def begin_trials(self, seed: int, place: int) -> None:
        """Trials of a training begin in all environments: draw their segment length, if by trial.

        One length for all of them, which begin together: were there as many as environments, every
        pass of an update would fall apart into one for each. It follows from the seed and the place
        in the training alone, so that a training restarted there draws the same.
        """
        config = self.network.memory.config
        if config.segment_jitter_in == "trial" and takes(config.kind, "segment_jitter_in"):
            # Hashed: generators of neighbouring seeds begin alike.
            hashed = random.Random(f"segments of {seed} at {int(place)}").getrandbits(63)
            generator = torch.Generator().manual_seed(hashed)
            self._segment_length = self.network.memory.draw_segment_length(generator)

    def learning_segment_length(self) -> int:
        """Steps of a segment in a pass over the trials under way: theirs, or drawn for the pass."""
        return self._segment_length or self.network.memory.draw_segment_length()

    # Acting -------------------------------------------------------------------------------------

    def act(
        self,
        observations: dict[str, Tensor],
        rnn_hidden_states: Any,
        prev_actions: Tensor,
        masks: Tensor,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> PolicyActionData:
        """One step of N environments.

        prev_actions long [N, 1]; masks bool [N, 1], False at an episode's first step. Actions are
        sampled by `generator`, by torch's own without one.
        """
        logits, values = self._step(observations, prev_actions.squeeze(-1), ~masks.squeeze(-1))
        log_probs = logits.log_softmax(-1)
        actions = log_probs.argmax(-1) if deterministic else sample_action(log_probs, generator)
        if self.teacher is not None and self.teacher_share:
            actions = torch.where(
                self._teacher_leads(actions), observations[self.teacher][:, 0], actions
            )
        return PolicyActionData(
            actions=actions[:, None],
            values=values[:, None],
            action_log_probs=log_probs.gather(-1, actions[:, None]),
        )

    def _teacher_leads(self, actions: Tensor) -> Tensor:
        """Where the teacher acts in this step, bool [N]: for stretches, not step by step.

        In turns of single steps neither is ever seen to go through with anything.
        """
        draw = torch.rand((2, *actions.shape), device=actions.device)
        wanted = draw[0] < self.teacher_share
        if self.led is None or self.led.shape != wanted.shape:
            self.led = wanted
        self.led = torch.where(draw[1] < 1.0 / _LEAD, wanted, self.led)
        return self.led

    def get_value(
        self,
        observations: dict[str, Tensor],
        rnn_hidden_states: Any,
        prev_actions: Tensor,
        masks: Tensor,
    ) -> Tensor:
        """Value [N, 1] of a step, which enters the memory: refresh before acting on."""
        _, values = self._step(observations, prev_actions.squeeze(-1), ~masks.squeeze(-1))
        return values[:, None]

    def _step(
        self, observations: dict[str, Tensor], prev_actions: Tensor, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        starts = (observations[TRIAL_STEP].reshape(-1) == 0).cpu()
        cache = self._emptied_cache(len(starts)) if starts.all() else self.acting_cache(len(starts))
        if starts.any() and not starts.all():
            cache.reset(starts)
        embed, answer = MemoPolicy._embed, MemoPolicy._answer
        if self.network.memory.config.compile_acting:
            device = self.network.critic.weight.device.type
            embed, answer = compiled(embed, device), compiled(answer, device)
        given = observations, prev_actions, episode_starts
        tokens = embed(self, *given)
        with self.autocast():
            remembered = self.network.memory.step(tokens, cache, episode_starts)
        logits, values = answer(self, remembered, *given)
        return logits, values

    def _embed(self, observations: dict[str, Tensor], *action_and_start: Tensor) -> Tensor:
        """Input tokens [N, D] of a step of acting."""
        return self.network.tokens(self._features(observations), observations, *action_and_start)

    def _answer(
        self, remembered: Tensor, observations: dict[str, Tensor], *action_and_start: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits [N, A] and values [N] of such a step."""
        heads = self.network.heads(remembered.float(), observations, *action_and_start)
        return heads.logits, heads.values

    def autocast(self) -> torch.autocast:
        """Within, encoder and memory run in the policy's precision."""
        device = self.network.critic.weight.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self._low_precision)

    def _features(self, observations: dict[str, Tensor]) -> Tensor:
        """Visual features [*, F], float32 as the batch contract has them."""
        with self.autocast():
            return self.network.features(observations).float()

    def acting_cache(self, num_envs: int) -> ActingCache:
        """What acting remembers, of so many environments; UserError in the middle of others'."""
        if self._cache is None or len(self._cache.steps) != num_envs:
            if self._cache is not None and bool(self._cache.steps.any()):
                raise UserError(
                    f"{num_envs} environments act in the middle of trials of "
                    f"{len(self._cache.steps)}: call forget() before the number changes"
                )
            device = self.network.critic.weight.device
            self._cache = self.network.memory.new_cache(num_envs, device, self.cache_dtype)
            self._set_segment_length(self._cache)
        return self._cache

    def _emptied_cache(self, num_envs: int) -> ActingCache:
        """It holds nothing; what is allocated stays for as many environments."""
        if self._cache is not None:
            self._cache.reset(torch.ones(len(self._cache.steps), dtype=torch.bool))
            self._set_segment_length(self._cache)
        return self.acting_cache(num_envs)

    def _set_segment_length(self, cache: Any) -> None:
        if self._segment_length is not None:
            cache.segment_length = self._segment_length

    @property
    def cache_dtype(self) -> torch.dtype:
        """Of the keys and values in acting."""
        return torch.bfloat16 if self._low_precision else self.network.critic.weight.dtype

    def forget(self) -> None:
        """Drop the acting memory of all environments."""
        self._cache = None

    def with_own_memory(self) -> MemoPolicy:
        """A policy of the same weights, not copies of them, that remembers for itself."""
        twin = copy.copy(self)
        twin.forget()
        return twin

    def context_use(self) -> ContextUse | None:
        """Memory in use; None before the first step."""
        if self._cache is None:
            return None
        config = self.network.memory.config
        step_bytes = 2 * config.layers * config.width * self.cache_dtype.itemsize
        return ContextUse(
            tokens=self._cache.tokens_in_use(),
            kv_bytes=self._cache.bytes_in_use(),
            full_context_kv_bytes=self._cache.steps * step_bytes,
        )

    # Learning -----------------------------------------------------------------------------------

    def evaluate_trials(
        self, batch: TrialBatch, segment_length: int | None, context_encoder_gradients: bool
    ) -> ActionEvaluation:
        """Log-probabilities, values and entropy of the steps in the losses, with gradients."""
        kept = self.network.kept_features
        start = 0 if context_encoder_gradients or not kept else batch.loss_start
        recent = {k: v[:, start:] for k, v in batch.observations.items()}
        features = self._features(recent)
        if start:
            features = torch.cat([batch.features[:, :start], features], dim=1)
        tokens = self.network.tokens(
            features, batch.observations, batch.prev_actions, batch.episode_starts
        )
        with self.autocast():
            encoded = self.network.memory.encode(tokens, segment_length, batch.episode_starts)
        network, memory_loss = self.network, encoded.auxiliary_loss
        heads = network.heads(
            batch.in_loss(encoded.outputs).float(),
            {k: batch.in_loss(v) for k, v in batch.observations.items()},
            batch.in_loss(batch.prev_actions),
            batch.in_loss(batch.episode_starts),
        )
        recall_loss, recall_parts = None, dict[str, float]()
        if network.recall is not None and heads.recalled is not None:
            recall_loss, recall_parts = network.recall.loss(
                heads.recalled, batch.observations, batch.loss_start
            )
        if network.observation_loss is not None:
            memory_loss = network.observation_loss(
                [summary.float() for summary in encoded.summaries],
                batch.observations[DETECTIONS],
                network.categories(),
                segment_length or network.memory.config.segment_length,
            )
        log_probs = heads.logits.log_softmax(-1)
        taken = batch.in_loss(batch.actions)[..., None]
        taught = None
        if self.teacher is not None:
            wanted = batch.in_loss(batch.observations[self.teacher])
            taught = log_probs.gather(-1, wanted).squeeze(-1)
        return ActionEvaluation(
            log_probs=log_probs.gather(-1, taken).squeeze(-1),
            values=heads.values,
            entropy=-(log_probs.exp() * log_probs).sum(-1),
            auxiliary_logits=heads.auxiliary,
            memory_loss=None if memory_loss is None else memory_loss.float(),
            teacher_log_probs=taught,
            recall_loss=recall_loss,
            recall_parts=recall_parts,
        )

    @torch.inference_mode()
    def refresh(self, storage: TrialStorage, chunk: int, values: bool) -> None:
        """Recompute the acting memory from the stored steps, with the weights as they are now.

        Also renews the stored visual features and, if `values`, the value predictions.
        """
        was_training = self.training
        self.eval()
        cache = self._emptied_cache(len(storage.actions))
        for start in range(0, storage.steps, chunk):
            window = slice(start, min(start + chunk, storage.steps))
            observations = storage.observed(slice(None), window)
            features = self._features(observations)
            if self.network.kept_features:
                storage.features[:, window] = features
            starts = storage.episode_starts[:, window]
            tokens = self.network.tokens(
                features, observations, storage.prev_actions[:, window], starts
            )
            with self.autocast():
                remembered = self.network.memory.extend(tokens, cache, starts)
            if values:
                previous = storage.prev_actions[:, window]
                heads = self.network.heads(remembered.float(), observations, previous, starts)
                storage.values[:, window] = heads.values
        self.train(was_training)
