"""TRL's GRPO trainer, with its sampling, rewards and batches replaced by ours. One step, in order:

    1. play tasks_per_step x group_size episodes at once, as the plan says; each is logged as it ends
    2. leave out episodes that ended in an error, and any whose record fails the audit; settle rewards; drop groups that
       the filters do not want, and play others in their places
    3. advantages within each group, one per episode or one per sampled token
    4. episodes become rows; padding rows fill up what every rank and micro-batch needs
    5. log-probs of the policy that sampled, where it is no longer the one trained, and of the reference, for a KL term

TRL's `_compute_loss` then does what it always does, on rows whose untrained tokens never meet the LM head.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false, reportUnknownParameterType=false, reportMissingTypeArgument=false

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import use_adapter

from agent.sampler import Sampler
from agent.vision import Vision
from envs.task import Taskset
from envs.trajectory import Stop
from tools.errors import ConfigError
from training.audit import problem_with_batch, problem_with_rows
from training.batch import AVERAGING, Batch, Row, bucketed, collate, row_weights, rows_of, size_for, trimmed
from training.correction import ratios
from training.grading import Entry, Worth, is_masked, rewards_of, seam_of, worth_of
from training.grpo_config import micro_batches, passes_per_sampling, refuse_unservable
from training.grpo_groups import GroupPlayer, say_left_out
from training.grpo_metrics import AdvantageLog, Means, Outcome, step_means
from training.losses import TrainedTokensOnly, logp_gap, project_trained_only, scale_gradient
from training.monitors import CallWatch
from training.pixels import show_pictures, sight_of
from training.recipe import GRPO
from training.resume import without_tied
from training.rollouts import StepRollouts
from training.seam import Moment
from training.sharing import with_slots

logger = logging.getLogger(__name__)

RELIES_ON: Mapping[str, tuple[str, ...]] = {
    "_generate_and_score_completions": ("self", "inputs"),
    "_compute_loss": ("self", "model", "inputs"),
    "_prepare_inputs": ("self", "generation_batch"),
    "_get_per_token_logps_and_entropies": (
        *("self", "model", "input_ids", "attention_mask", "logits_to_keep"),
        *("batch_size", "compute_entropy", "compute_aux_loss"),
    ),
}
"""Methods of TRL's trainer that are overridden here, or that the rest counts on, with their first parameters."""

GAP_TO_DOUBT = 0.1
"""Mean |sampler - trainer| log-prob, in nats, from which on the two hardly compute the same policy."""


@final
class ToolGRPOTrainer(GRPOTrainer):
    """Made by `training.grpo.make_trainer`, which checks the settings first."""

    args: GRPOConfig
    model: Any
    _tokenizer: Any

    def __init__(
        self,
        settings: GRPO,
        *,
        taskset: Taskset,
        make_sampler: Callable[[Any], Sampler],
        out: Path,
        run_seed: int,
        vision: Vision | None = None,
        **trl: Any,
    ) -> None:
        super().__init__(reward_funcs=[_scored_by_the_rubric], **trl)
        self.remove_callback(PrinterCallback)  # metrics go to the callbacks that were asked for
        self.settings = settings
        self.taskset = taskset
        self.seam = seam_of(settings)
        sampler: Any = make_sampler(self.model)
        refuse_unservable(getattr(sampler, "engine", None))
        rank = self.accelerator.process_index
        suffix = f"-rank{rank}" if rank else ""
        self.rollouts = StepRollouts(
            with_slots(taskset, settings.tool_concurrency) if settings.tool_concurrency else taskset,
            sampler,
            params=settings.params,
            limits=settings.limits,
            log=out / f"trajectories{suffix}.jsonl",
            seed=run_seed,
            concurrency=settings.concurrency,
            share_results=settings.share_results,
        )
        self.advantage_log = AdvantageLog(out / f"advantages{suffix}.jsonl")
        base: Any = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        project_trained_only(base, temperature=self.temperature)
        if vision is not None:
            for one in (base, self.accelerator.unwrap_model(self.ref_model) if self.ref_model is not None else None):
                if one is not None:
                    show_pictures(one, vision)
        self.player = GroupPlayer(
            taskset,
            self.seam,
            self.rollouts,
            vocabulary=base.get_input_embeddings().weight.shape[0],
            positions=getattr(base.config.get_text_config(), "max_position_embeddings", None),
            sight=sight_of(sampler.renderer) if vision is not None else None,
            rank=rank,
            ranks=self.accelerator.num_processes,
        )
        self._at_hand: Batch | None = None
        self._watch = CallWatch()

    def close(self) -> None:
        """Close the log, the engine and the loop the episodes ran on."""
        self.rollouts.close()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a checkpoint is for resuming, and the run folder explains itself."""

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        super()._issue_warnings_after_load(without_tied(load_result, self.model))

    # The five steps.

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        if not self.model.training:
            raise ConfigError("TRL's own evaluation is not used here", hint="measure held-out tasks with `evals run`")
        moment = Moment(step=self.state.global_step, steps=self.args.max_steps)
        device = self.accelerator.device
        # A resumed step reads episodes where an undisturbed one sampled them; the shuffle after it must not notice.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            groups = self.player.groups(moment, list(dict.fromkeys(row["task"] for row in inputs)))
        kept = [found.group for found in groups if found.dropped is None]
        worth = iter(worth_of(self.seam, kept, self._everyone(rewards_of(kept)), moment))
        rows: list[Row] = []
        outcomes: list[Outcome] = []
        for found in groups:
            none = [0.0] * len(found.entries)
            for entry, advantage in zip(found.entries, none if found.dropped else next(worth), strict=True):
                made, outcome = self._rows(entry, advantage, found.dropped, episode=len(outcomes))
                rows += made
                outcomes.append(outcome)
        self.advantage_log.append(moment.step, outcomes)
        batch = self._batch_of(rows, outcomes)
        if not kept:
            logger.warning("every group of step %d was dropped: %s", moment.step, groups[0].dropped)
        elif not any(outcome.left_out is None for outcome in outcomes):
            logger.warning("no episode of step %d is trained on: %s", moment.step, outcomes[0].left_out)
        self._note(step_means(outcomes, groups, [*self.taskset.rubric.rewards, *self.taskset.rubric.group]))
        return batch

    def _rows(self, entry: Entry, advantage: Worth, dropped: str | None, episode: int) -> tuple[list[Row], Outcome]:
        """The training rows of an episode, and what became of it."""
        trajectory, problem = entry.trajectory, entry.problem
        made: list[Row] = []
        if problem is None and dropped is None and entry.attempt.trained and not is_masked(self.seam, trajectory):
            made = rows_of(entry.sequences, episode=episode, advantage=advantage)
            problem = problem_with_rows(made, trajectory)
            if problem is not None:
                say_left_out(trajectory, problem)
                made = []
        outcome = Outcome(
            trajectory=trajectory,
            attempt=entry.attempt,
            left_out=problem,
            dropped=dropped,
            advantage=advantage,
            trained=bool(made),
            rows=len(made),
        )
        return made, outcome

    def _everyone(self, rewards_PG: Tensor) -> Tensor:
        """The rewards of all processes, for advantages that look at the whole batch."""
        if self.accelerator.num_processes == 1:
            return rewards_PG
        padded: Any = rewards_PG.to(self.accelerator.device)
        for dim in (1, 0):
            padded = self.accelerator.pad_across_processes(padded, dim=dim, pad_index=torch.nan)  # pyright: ignore[reportArgumentType]
        whole: Any = self.accelerator.gather(padded)
        return whole.cpu()

    def _batch_of(self, rows: list[Row], outcomes: Sequence[Outcome]) -> Batch:
        """Rows of every rank padded to one number, which splits into TRL's micro-batches without a remainder.

        Rows without an advantage count in every average and are then left out, where their gradient is exactly 0: a
        group whose attempts all won or all lost costs no forward pass.
        """
        usable = sum(outcome.left_out is None or self._is_dropped(outcome) for outcome in outcomes)
        trained = sum(outcome.trained for outcome in outcomes)
        tokens = sum(sum(row.mask) for row in rows)
        played = sum(len(row.prompt) + len(row.completion) for row in rows)
        if self._idle_rows_are_idle():
            rows = [row for row in rows if not row.is_idle]
        here = torch.tensor([[len(rows), usable, trained, tokens, played]], device=self.accelerator.device)
        ranks: Any = self.accelerator.gather(here)
        self.state.num_input_tokens_seen += int(ranks[:, 4].sum())
        if int(ranks[:, 1].sum()) == 0:  # a step without any is a fault; one that the settings drop is a lost step
            raise _nothing_to_learn_from(self.state.global_step, outcomes)
        size = size_for(int(ranks[:, 0].max()), chunks=micro_batches(self.args))
        batch = collate(rows, size=size, pad_id=self._tokenizer.pad_token_id)
        problem = problem_with_batch(batch, [row.trained_ids for row in rows])
        if problem is not None:
            raise RuntimeError(f"the batch of step {self.state.global_step} is wrong: {problem}")
        batch["row_weights"] = row_weights(
            rows,
            size=size,
            all_rows=size * len(ranks),
            all_episodes=max(1, int(ranks[:, 2].sum())),
            averaging=AVERAGING[self.loss_type],
        )
        batch["num_items_in_batch"] = ranks[:, 3].sum()
        self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]
        episodes = [row.episode for row in rows] + [-1] * (size - len(rows))
        device = self.accelerator.device
        batch = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        return self._with_log_probs(batch, torch.tensor(episodes, device=self.accelerator.device))

    def _is_dropped(self, outcome: Outcome) -> bool:
        """True where the settings, not a fault, leave an episode out: it stopped for a reason that is dropped."""
        stop = outcome.trajectory.stop
        return stop not in (None, Stop.ERROR) and self.seam.stops[stop] == "drop"

    def _idle_rows_are_idle(self) -> bool:
        """False where a row without advantage moves the weights, or the loss averages over the rows it is given."""
        args = self.args
        return not (self.beta or args.entropy_coef or args.use_adaptive_entropy) and self.loss_type != "bnpo"

    def _with_log_probs(self, batch: Batch, episodes: Tensor) -> Batch:
        args = self.args
        off_policy = args.gradient_accumulation_steps % passes_per_sampling(args) != 0
        corrected = self.settings.correction != "none"
        with torch.no_grad():
            if off_policy or corrected:
                batch["old_per_token_logps"] = self._log_probs(self.model, batch)
            if corrected:
                self._correct(batch, episodes)
            if self.beta != 0.0 and self.ref_model is not None:
                batch["ref_per_token_logps"] = self._log_probs(self.ref_model, batch)
            elif self.beta != 0.0:
                adapted = self.accelerator.unwrap_model(self.model)
                with use_adapter(adapted, adapter_name="ref" if "ref" in adapted.peft_config else None):
                    batch["ref_per_token_logps"] = self._log_probs(self.model, batch)
        return batch

    def _correct(self, batch: Batch, episodes: Tensor) -> None:
        """Fold the sampler's importance ratios into the advantages."""
        mask = batch["completion_mask"] * batch["tool_mask"]
        sampler, trainer = batch["sampling_per_token_logps"], batch["old_per_token_logps"]
        mode, cap = self.settings.correction, self.settings.correction_cap
        factor = ratios(trainer, sampler, mask, episodes, mode=mode, cap=cap)
        advantages = batch["advantages"]
        batch["advantages"] = (advantages.unsqueeze(1) if advantages.dim() == 1 else advantages) * factor
        if mask.any():
            self._metrics["train"]["sampling/correction_mean"].append(float(factor[mask.bool()].mean()))

    def _log_probs(self, model: Any, batch: Batch) -> Tensor:
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        with self._holding(batch):
            return self._get_per_token_logps_and_entropies(
                model,
                ids,
                attention,
                batch["completion_ids"].shape[1],
                batch_size=self.args.per_device_train_batch_size,
            )[0]

    # The loss.

    def _prepare_inputs(self, generation_batch: Any) -> Batch:
        before: Any = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        buffered: Any = self._buffered_inputs
        if buffered is before or buffered is None or not self._micro_batches_are_sums():
            return inputs
        window = min(self.args.gradient_accumulation_steps, micro_batches(self.args))
        if window > 1:
            self._buffered_inputs = bucketed(self._buffered_inputs, window)
            inputs = self._buffered_inputs[self._step % micro_batches(self.args)]
        return inputs

    def _micro_batches_are_sums(self) -> bool:
        """False where a loss averages over each micro-batch, so that it matters which rows are in it."""
        args = self.args
        per_batch = args.entropy_coef or args.use_adaptive_entropy or self.top_entropy_quantile < 1.0
        return not (per_batch or self.aux_loss_enabled or self.loss_type == "bnpo")

    def _compute_loss(self, model: Any, inputs: Batch) -> Tensor:
        batch = trimmed(inputs)
        with self._holding(batch):
            return super()._compute_loss(model, batch)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        batch = self._at_hand
        if batch is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        mask = batch["completion_mask"] * batch["tool_mask"]
        logps, entropies, aux = super()._get_per_token_logps_and_entropies(
            TrainedTokensOnly(model, mask, batch.get("pictures")),
            input_ids,
            attention_mask,
            logits_to_keep,
            *args,
            **kwargs,
        )
        if torch.is_grad_enabled():
            self._compare_with_sampler(batch.get("old_per_token_logps", logps), batch, mask)
            if bool((batch["row_weights"] != 1).any()):
                logps = scale_gradient(logps, batch["row_weights"])
        return logps, entropies, aux

    @contextmanager
    def _holding(self, batch: Batch) -> Generator[None]:
        """While TRL's methods run, `_get_per_token_logps_and_entropies` knows the mask and the weights of the rows."""
        self._at_hand = batch
        try:
            yield
        finally:
            self._at_hand = None

    # What it says.

    def _compare_with_sampler(self, logps: Tensor, batch: Batch, mask: Tensor) -> None:
        """This rank's rows; the trainer's log-probs at sampling time against those recorded with the ids."""
        mean, most = logp_gap(logps, batch["sampling_per_token_logps"], mask)
        metrics = self._metrics["train"]
        if mean > GAP_TO_DOUBT and not metrics["sampling/logp_gap_mean"]:
            logger.warning(
                "sampler and trainer differ by %.3f nats per token: are weights, precision and temperature the same?",
                mean,
            )
        if mask.any():
            metrics["sampling/logp_gap_mean"].append(mean)
            metrics["sampling/logp_gap_max"] = [max(most, *metrics["sampling/logp_gap_max"], 0.0)]

    def _note(self, means: Means) -> None:
        """Add the metrics of a step, over all ranks; a mean of nothing is left out."""
        sums = torch.tensor(list(means.values()), device=self.accelerator.device, dtype=torch.float64)
        totals: Any = self.accelerator.reduce(sums, reduction="sum")
        for name, (total, count) in zip(means, totals.tolist(), strict=True):
            if count:
                self._metrics["train"][name].append(total / count)
        calls, episodes = totals[list(means).index("episodes/calls")].tolist()
        if episodes and self.accelerator.is_main_process:
            self._watch.see(calls / episodes)


def _nothing_to_learn_from(step: int, outcomes: Sequence[Outcome]) -> ConfigError:
    reasons = Counter(outcome.left_out for outcome in outcomes)
    reason, count = reasons.most_common(1)[0]
    crashed = all(outcome.trajectory.stop is Stop.ERROR for outcome in outcomes)
    what = "ended in an error" if crashed else "could not be used"
    return ConfigError(
        f"all {len(outcomes)} episodes of step {step} {what}; {count} of them: {reason}",
        hint="trajectories.jsonl holds every traceback; the same command tries again from the last checkpoint",
    )


def _scored_by_the_rubric(**_: Any) -> list[float | None]:
    """TRL asks for a reward function; the episodes come to it scored, so it is never called."""
    raise AssertionError("TRL scored an episode that the rubric had scored")
