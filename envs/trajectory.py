"""The record of one episode: what was said, what was sampled, which tools ran, why it stopped, what it scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from envs.message import Message
from envs.task import Task
from tools.record import record
from tools.tool import Tool, ToolCall, ToolResult

Source: TypeAlias = Literal["prompt", "model", "tool", "env", "forced"]
"""Who wrote a token: the first messages, the policy, a tool's result, anything else the world said, or whoever put
words into the policy's mouth (a prefix, the words that close thinking)."""

Finish: TypeAlias = Literal["stop", "length", "context"]
"""Why sampling ended: the model closed its turn (or wrote a stop string), it met its token limit, or the context
was full."""

Outcome: TypeAlias = Literal["ok", "tool_error", "malformed", "timeout", "crashed", "cancelled"]
"""What came of a call. `tool_error`, `malformed` and `timeout` are the model's to see and mend; `crashed` is the
tool's own bug and ends the episode; `cancelled` was cut short because the episode ended first."""


class Stop(StrEnum):
    """Why an episode ended."""

    DONE = "done"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    MAX_CONTEXT = "max_context"
    MAX_CALLS = "max_calls"
    MAX_COST = "max_cost"
    TIMEOUT = "timeout"
    ERROR = "error"

    @property
    def truncated(self) -> bool:
        """True when a limit cut the episode: it is scored, and flagged."""
        return self not in (Stop.DONE, Stop.ERROR)


@record
class Span:
    """Tokens [start, end) of a step's `added` ids, and who wrote them."""

    start: int
    end: int
    source: Source


@record
class PlacedImage:
    """An image whose placeholder tokens begin at `position` of the ids it is listed with."""

    sha256: str
    shown_size: tuple[int, int]
    """Width and height in pixels, as the model was shown it."""
    position: int


@record
class StepTokens:
    """The tokens of one step, recorded as the episode ran.

    Only what the step *added* before sampling is stored, so a log grows with what was said, not with turns squared:

        prompt P0, sampled A0, tool result E1, sampled A1
        step 0: added=P0 completion=A0 extends=False
        step 1: added=E1 completion=A1 extends=True       (the engine was given P0 A0 E1)
    """

    added: tuple[int, ...]
    """Ids put before sampling; the whole prompt when `extends` is False."""
    completion: tuple[int, ...]
    """Ids sampled, stop token and what was forced among them included."""
    logprobs: tuple[float, ...]
    """Log-probability of each completion id at the sampling temperature, before top-p and top-k; 0.0 where forced."""
    extends: bool
    """True when this prompt is the previous prompt plus its completion plus `added`; False starts a new sequence
    (a fork)."""
    spans: tuple[Span, ...]
    """Cover `added`, in order, without gaps."""
    images: tuple[PlacedImage, ...] = ()
    forced: int = 0
    """How many leading completion ids were forced on the policy instead of sampled from it."""
    inserted: tuple[tuple[int, int], ...] = ()
    """Later stretches [start, end) of the completion that were forced on the policy: the words that closed thinking."""

    @property
    def mask(self) -> tuple[int, ...]:
        """1 on each completion id that the policy sampled, 0 on those forced on it."""
        mask = [0] * self.forced + [1] * (len(self.completion) - self.forced)
        for start, end in self.inserted:
            mask[start:end] = [0] * (end - start)
        return tuple(mask)

    @property
    def sampled_ids(self) -> tuple[int, ...]:
        """The completion ids that the policy sampled."""
        if not self.inserted:
            return self.completion[self.forced :]
        return tuple(token for token, on in zip(self.completion, self.mask, strict=True) if on)


@record
class CallRecord:
    """One tool call as it happened."""

    call: ToolCall
    result: ToolResult
    outcome: Outcome
    seconds: float


@record
class Step:
    """One action of the policy, with what it saw and what its calls did."""

    observation: tuple[Message, ...]
    """Messages new since the previous action."""
    action: Message
    calls: tuple[CallRecord, ...] = ()
    finish: Finish = "stop"
    tokens: StepTokens | None = None
    """None when the policy has no token ids: a person, a script, a chat API that returns none."""
    policy_version: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Wall time by part: `model`, `tools`."""
    usage: Mapping[str, int] = field(default_factory=dict[str, int])
    """Tokens a server counted, where it returned no ids: `prompt`, `completion`."""


@record
class TokenSequence:
    """One training row: every field but `images` has one entry per token.

    P0 A0 | E1 A1   ->   token_ids  P0 + A0 + E1 + A1
                         loss_mask   0    1    0    1
    """

    token_ids: tuple[int, ...]
    loss_mask: tuple[int, ...]
    """1 exactly on what the policy sampled."""
    sources: tuple[Source, ...]
    logprobs: tuple[float, ...]
    """0.0 where the mask is 0."""
    images: tuple[PlacedImage, ...] = ()


@dataclass(slots=True, kw_only=True, repr=False)
class Trajectory:
    """One episode. Append-only while it runs; a plain record afterwards."""

    task: Task
    tools: tuple[Tool, ...] = ()
    steps: list[Step] = field(default_factory=list[Step])
    final: tuple[Message, ...] = ()
    """What the world said after the last action."""
    stop: Stop | None = None
    """None while the episode runs."""
    error: str | None = None
    """The traceback, when `stop` is ERROR."""
    scores: dict[str, float] = field(default_factory=dict[str, float])
    reward: float | None = None
    """None until scored; an episode that ended in ERROR never is."""
    sample: int = 0
    """Which of the repeated attempts at its task this is."""
    seed: int | None = None
    seconds: float = 0.0
    info: dict[str, Any] = field(default_factory=dict[str, Any])
    """From `Reply.info` and from whoever ran the episode; JSON values only."""

    def __repr__(self) -> str:
        """Short enough for a debugger and a failed test; the log holds the rest."""
        stop = None if self.stop is None else str(self.stop)
        return f"Trajectory(task={self.task.id!r}, steps={len(self.steps)}, stop={stop!r}, reward={self.reward})"

    @property
    def messages(self) -> list[Message]:
        """All that was said, in order."""
        said: list[Message] = []
        for step in self.steps:
            said += [*step.observation, step.action]
        return [*said, *self.final]

    @property
    def calls(self) -> list[CallRecord]:
        """Every tool call, in order: executed calls, never text that merely looks like one."""
        return [call for step in self.steps for call in step.calls]

    @property
    def answer(self) -> str:
        """The text of the last thing the model said; empty if it said nothing."""
        return self.steps[-1].action.text if self.steps else ""

    @property
    def sampled_tokens(self) -> int:
        """How many tokens the policy sampled, by recorded ids or else by the server's count."""
        return sum(
            len(step.tokens.sampled_ids) if step.tokens else step.usage.get("completion", 0) for step in self.steps
        )

    def sequences(self) -> list[TokenSequence]:
        """The training rows: one, and one more for each recorded fork.

        Raises `ValueError`, naming the step, when a step has no recorded ids.
        """
        rows: list[_Row] = []
        for index, step in enumerate(self.steps):
            if step.tokens is None:
                raise ValueError(f"step {index} of task {self.task.id} has no token ids: its policy returned none")
            if not step.tokens.extends:
                rows.append(_Row())
            elif not rows:
                raise ValueError(f"step 0 of task {self.task.id} claims to extend a step before it")
            rows[-1].append(step.tokens)
        return [row.done() for row in rows]


@dataclass(slots=True)
class _Row:
    """A `TokenSequence` while it grows."""

    ids: list[int] = field(default_factory=list[int])
    mask: list[int] = field(default_factory=list[int])
    sources: list[Source] = field(default_factory=list[Source])
    logprobs: list[float] = field(default_factory=list[float])
    images: list[PlacedImage] = field(default_factory=list[PlacedImage])

    def append(self, tokens: StepTokens) -> None:
        offset = len(self.ids)
        for image in tokens.images:
            self.images.append(
                PlacedImage(sha256=image.sha256, shown_size=image.shown_size, position=offset + image.position)
            )
        for span in tokens.spans:
            self.sources.extend(span.source for _ in range(span.start, span.end))
        mask = tokens.mask
        self.ids += [*tokens.added, *tokens.completion]
        self.mask += [0] * len(tokens.added) + list(mask)
        self.sources.extend("model" if on else "forced" for on in mask)
        self.logprobs += [0.0] * len(tokens.added)
        self.logprobs += [p if on else 0.0 for p, on in zip(tokens.logprobs, mask, strict=True)]

    def done(self) -> TokenSequence:
        lengths = {len(self.ids), len(self.mask), len(self.sources), len(self.logprobs)}
        if len(lengths) != 1:
            raise ValueError(
                f"token record is inconsistent: ids, mask, sources, logprobs have lengths {sorted(lengths)}"
            )
        return TokenSequence(
            token_ids=tuple(self.ids),
            loss_mask=tuple(self.mask),
            sources=tuple(self.sources),
            logprobs=tuple(self.logprobs),
            images=tuple(self.images),
        )
