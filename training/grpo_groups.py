"""The groups of one step: planned, played, checked, scored and filtered; others in the places of dropped ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import final

from envs.seed import derive_seed
from envs.task import Taskset
from envs.trajectory import TokenSequence, Trajectory
from tools.errors import ConfigError
from training.audit import Sight, problem_with_episode
from training.grading import Entry, Graded, Seam, attempts_of, graded
from training.rollouts import Planned, Serving, StepRollouts
from training.seam import Attempt, Moment

logger = logging.getLogger(__name__)


@final
class GroupPlayer:
    """What a trainer asks for groups; `vocabulary`, `positions` and `sight` are the model's, for the audit."""

    def __init__(
        self,
        taskset: Taskset,
        seam: Seam,
        rollouts: StepRollouts,
        *,
        vocabulary: int,
        positions: int | None,
        sight: Sight | None = None,
        rank: int,
        ranks: int,
    ) -> None:
        self.taskset = taskset
        self.seam = seam
        self.rollouts = rollouts
        self.vocabulary = vocabulary
        self.positions = positions
        self.sight = sight
        self.rank = rank
        self.ranks = ranks

    def groups(self, moment: Moment, tasks: Sequence[int]) -> list[Graded]:
        """The groups of a step; others in the places of dropped ones, as often as `refill` says."""
        wanted, tried = len(tasks), list(tasks)
        found: list[Graded] = []
        for round_ in range(self.seam.settings.refill + 1):
            found += self._play(moment, tasks)
            missing = wanted - sum(group.dropped is None for group in found)
            if not missing or round_ == self.seam.settings.refill:
                break
            tasks = self._other_tasks(moment.step, tried)[:missing]
            if not tasks:
                break
            tried += tasks
        return found

    def _other_tasks(self, step: int, tried: Sequence[int]) -> list[int]:
        """Tasks to go on with, in an order that a resumed run finds again; each process has its own share of them."""
        mine = {index for index in range(len(self.taskset.tasks)) if index % self.ranks == self.rank} - set(tried)
        return sorted(mine, key=lambda index: derive_seed(self.rollouts.seed, "refill", step, index))

    def _play(self, moment: Moment, indices: Sequence[int]) -> list[Graded]:
        tasks = [self.taskset.tasks[index] for index in indices]
        plan = [(task, attempts_of(self.seam, task, moment)) for task in tasks]
        planned = [
            Planned(task=task, sample=sample, attempt=attempt)
            for task, attempts in plan
            for sample, attempt in enumerate(attempts)
        ]
        engine = self.rollouts.engine
        if isinstance(engine, Serving):  # it computes with the very weights that are trained
            engine.policy_version = moment.step
        played = iter(self.rollouts.run(moment.step, planned))
        groups: list[Graded] = []
        for task, attempts in plan:
            entries = [self._entry(next(played), attempt) for attempt in attempts]
            groups.append(graded(self.seam, self.taskset.rubric, task, entries, moment))
        return groups

    def _entry(self, trajectory: Trajectory, attempt: Attempt) -> Entry:
        """The episode with its token sequences, and why it must be left out of everything, if it must."""
        if not self.rollouts.is_scored(trajectory):
            problem = (trajectory.error or "it was never scored").strip().splitlines()[-1]
            return Entry(trajectory=trajectory, attempt=attempt, problem=problem)
        if not attempt.trained:
            return Entry(trajectory=trajectory, attempt=attempt)
        if any(step.tokens is None for step in trajectory.steps):
            raise ConfigError(
                "the sampler records no token ids, and GRPO trains on what was sampled",
                hint="use a TokenSampler: a renderer and an engine",
            )
        sequences: list[TokenSequence] = []
        try:
            sequences = trajectory.sequences()
            problem = problem_with_episode(
                trajectory, sequences, vocab_size=self.vocabulary, max_context=self.positions, sight=self.sight
            )
        except ValueError as error:
            problem = str(error)
        if problem:
            say_left_out(trajectory, problem)
        return Entry(trajectory=trajectory, attempt=attempt, sequences=tuple(sequences), problem=problem)


def say_left_out(trajectory: Trajectory, problem: str) -> None:
    """One line in the log for a sample that is not trained on."""
    logger.warning("task %s, sample %d is left out: %s", trajectory.task.id, trajectory.sample, problem)
