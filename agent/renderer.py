"""The only place where messages become token ids, and ids become messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, final

from agent.dialect import Dialect, TokenDialect
from agent.dialects.native import Native
from agent.encoder import Encoder, Tokenizer
from agent.families import Family
from agent.families.proof import calls_difference, proven_family
from agent.parts import SEAM, Part, Parts, Turn, Written, control, markup, spoken, text_of
from agent.vision import Vision
from envs.message import Message
from envs.trajectory import PlacedImage, Source, Span, TokenSequence, Trajectory
from tools.content import Image
from tools.errors import ConfigError
from tools.record import record
from tools.tool import Tool, ToolCall

Thinking: TypeAlias = Literal["keep", "strip", "template"]
"""What becomes of earlier thinking once a user speaks again: kept, dropped (a fork), or as the model's family does."""


@record
class Delta:
    """Ids to put before the next completion."""

    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    """Cover `ids`, in order, without gaps."""
    images: tuple[PlacedImage, ...] = ()
    continues_turn: bool = False
    """True when the next completion goes on with the same assistant turn."""


@final
class Renderer:
    """Writes turns in the format of a model's family, calls and results in a dialect.

    Text between two special tokens is encoded by itself, special tokens are set by id: appending a turn can never
    change the ids before it, and text that merely looks like a special token never becomes one. What the tokenizer and
    the model's own chat template must be like for that is checked here, and refused in one sentence.
    """

    def __init__(
        self,
        tokenizer: Any,
        dialect: Dialect,
        *,
        family: Family | str | None = None,
        thinking: Thinking = "keep",
        prefix: str = "",
        forks: bool = False,
        vision: Vision | None = None,
    ) -> None:
        """Make a renderer and check it.

        Args:
            tokenizer: A transformers tokenizer.
            dialect: How calls are written; `native` is the family's own way.
            family: A name of `agent.families.FAMILIES`, `template`, or a family of your own; by default what the
                tokenizer says. Each is held against the tokenizer's chat template, where it has one.
            thinking: What becomes of earlier thinking once a user speaks again.
            prefix: What opens every action, forced on the model: its ids carry the source `forced` and no loss.
            forks: Take a template that rewrites earlier turns too: every turn is then rendered anew, a recorded fork.
            vision: How the model writes pictures; without one, a message that holds a picture is refused.

        Raises `ConfigError` when the family cannot be told, or turns cannot be proven to append exactly.
        """
        self.tokenizer: Tokenizer = tokenizer
        self.vision = vision
        self.family, self.appends = proven_family(tokenizer, family, forks)
        self.native = isinstance(dialect, Native)
        self.dialect: Dialect | TokenDialect = self._own_dialect() if self.native else dialect
        # Asked once: a check against a protocol costs more than rendering a turn.
        self._by_turns = self.dialect if isinstance(self.dialect, TokenDialect) else None
        self._by_text = None if isinstance(self.dialect, TokenDialect) else self.dialect
        self._refuse_foreign()
        self.thinking: Thinking = thinking
        self._strips = thinking == "strip" or (thinking == "template" and self.family.history == "strip")
        tags = () if isinstance(self.dialect, TokenDialect) else self.dialect.tags
        more = self.dialect.controls if isinstance(self.dialect, TokenDialect) else ()
        seen = vision.controls if vision is not None else ()
        self.encoder = Encoder(tokenizer, dict.fromkeys((*self.family.controls, *more, *seen)), tags)
        self.stop_ids = frozenset(self.encoder.control(token) for token in self.family.ends)
        self.stop_strings = () if isinstance(self.dialect, TokenDialect) else self.dialect.stop
        self.prefix = prefix
        self._prefix = self._parts_of(prefix)
        self.encoder.check(self.family.name)

    def start(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Delta:
        """The whole prompt: `messages` (which may hold earlier assistant turns), then an open assistant turn."""
        turns, opened = self._history(messages)
        written = self.family.begin(turns, self.dialect.instructions(tools), self.native)
        return self._delta(written, opened, only="prompt")

    def extend(self, so_far: Trajectory, new: Sequence[Message]) -> Delta | None:
        """What to append after the last completion so that the policy sees `new`; None when its ids are not known, or
        when earlier thinking is to go.

        The ids before are never touched: previous prompt + completion + delta is the next prompt, exactly.
        """
        last = so_far.steps[-1] if so_far.steps else None
        if last is None or last.tokens is None or not self.appends:
            return None
        if self._strips and any(message.role == "user" for message in new) and _thought(so_far):
            return None
        closed = last.tokens.completion[-1:] and last.tokens.completion[-1] in self.stop_ids
        written, opened = self._following(new, last.action.tool_calls, bool(closed))
        return self._delta(written, opened)

    def parse(self, completion: Sequence[int], tools: Sequence[Tool], *, opened: bool = True) -> Message:
        """The message that sampled ids say. Never raises for what a model wrote.

        `opened` is False where the completion goes on with an assistant turn, so that no prefix stands before it.
        """
        ids = self._without_end(completion)
        prefix = self._prefix if opened else ()
        if self._by_text is not None:
            said = text_of(prefix) + self.encoder.text(ids)
            return self._by_text.parse(said.removeprefix(self.family.opening), tools)
        assert self._by_turns is not None
        return self._by_turns.read((*prefix, *self.encoder.parts(ids)), tools)

    def text(self, completion: Sequence[int]) -> str:
        """The text of sampled ids, without the token that closed the turn."""
        return self.encoder.text(self._without_end(completion))

    def written(self, words: str) -> tuple[int, ...]:
        """The ids of words put into the model's mouth; the names of the family's control tokens are meant as such."""
        return self.encoder.ids(self._parts_of(words))

    def teach(self, trajectory: Trajectory) -> list[TokenSequence]:
        """Training rows of an episode whose actions have no ids (a script, a person, a chat API), rendered once.

        The actions carry the loss, the token that closes a turn included; log-probs are 0. Turns that a result
        continues are one row; where earlier thinking is dropped, another begins. Recorded ids are never rendered again:
        with ids, this is `trajectory.sequences()`.
        """
        if trajectory.steps and all(step.tokens is not None for step in trajectory.steps):
            return trajectory.sequences()
        drafts: list[_Draft] = []
        said: list[Message] = []
        before: Message | None = None
        for step in trajectory.steps:
            said += step.observation
            thought = any(message.reasoning is not None for message in said)
            drop = self._strips and thought and any(message.role == "user" for message in step.observation)
            if before is None or drop or not self.appends:
                drafts.append(_Draft())
                delta = self.start(said, trajectory.tools)
                drafts[-1].add(delta.ids, delta.spans, delta.images)
            else:
                written, opened = self._following(step.observation, before.tool_calls, self._closes(before))
                delta = self._delta(written, opened)
                drafts[-1].add(delta.ids, delta.spans, delta.images)
            self._act(drafts[-1], step.action, opened=not delta.continues_turn)
            said.append(step.action)
            before = step.action
        return [draft.sequence() for draft in drafts]

    def _act(self, draft: _Draft, action: Message, opened: bool) -> None:
        """An action as the model would have sampled it, after its prefix."""
        parts = self._without_prefix(self._body(action)) if opened else self._body(action)
        ids = self.encoder.ids(parts)
        if self._closes(action):
            ends = self.dialect.ends(action) if isinstance(self.dialect, TokenDialect) else None
            ids = (*ids, self.encoder.control(ends or self.family.ends[0]))
        draft.add(ids, (Span(start=0, end=len(ids), source="model"),))

    def _history(self, messages: Sequence[Message]) -> tuple[list[Turn], bool]:
        """Messages as turns, and whether the assistant's next one has to be opened."""
        last_user = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
        turns: list[Turn] = []
        pending: list[Message] = []
        before: Message | None = None
        for index, message in enumerate(messages):
            if message.role != "assistant":
                pending.append(message)
                continue
            self._answer(turns, pending, before)
            if self._strips and index < last_user:
                message = replace(message, reasoning=None)
            parts = self._body(message)
            if turns and turns[-1].role == "assistant" and not turns[-1].closed:  # the result is in the same turn
                parts = (*turns.pop().parts, SEAM, *parts)
            elif self._prefix:
                rest = self._without_prefix(parts)
                parts = (*self._prefix, SEAM, *rest) if len(rest) < len(parts) or rest != parts else parts
            end = self._end_in_history(message)
            turns.append(Turn(role="assistant", parts=parts, closed=self._closes(message), end=end))
            pending, before = [], message
        if pending or before is None:
            self._answer(turns, pending, before)
        elif turns:
            turns[-1] = replace(turns[-1], closed=True)
        return turns, not (turns and turns[-1].role == "assistant" and not turns[-1].closed)

    def _answer(self, turns: list[Turn], new: Sequence[Message], before: Message | None) -> None:
        """Append what the world said after an action."""
        inside, further = self._new_turns(new, before, before is not None and not self._closes(before))
        if turns and turns[-1].role == "assistant" and not turns[-1].closed:
            parts = (*turns[-1].parts, SEAM, *inside) if inside else turns[-1].parts
            turns[-1] = replace(turns[-1], parts=parts, closed=bool(further) or not inside)
        turns += further

    def _following(self, new: Sequence[Message], calls: Sequence[ToolCall], closed: bool) -> tuple[Written, bool]:
        """What comes after an action, and whether it opens another assistant turn."""
        inside, turns = self._new_turns(new, Message(role="assistant", tool_calls=tuple(calls)), not closed)
        written: Written = [("tool", inside)] if inside else []
        if inside and not turns:
            return written, False
        return [*written, *self.family.go_on(turns, closed)], True

    def _new_turns(self, new: Sequence[Message], before: Message | None, is_open: bool) -> tuple[Parts, list[Turn]]:
        """What goes into the assistant turn that is still open, and what comes after it."""
        results = [message for message in new if message.role == "tool"]
        calls = before.tool_calls if before else ()
        inside: Parts = ()
        turns: list[Turn] = []
        if self.vision is None and any(isinstance(part, Image) for message in new for part in message.content):
            raise ConfigError(
                "this model reads text only, and a message holds an image",
                hint="give one that sees: tiny_vlm (training run tiny_vlm), a SmolVLM, Qwen2.5-VL, ...",
            )
        if results and self._by_turns is not None:
            turns += self._by_turns.turns(calls, results)
        elif results:
            assert self._by_text is not None
            injection = self._by_text.format(calls, results)
            if injection.continues_turn and is_open:
                inside = injection.parts
            else:
                turns.append(Turn(role=injection.role, parts=_trimmed(injection.parts), source="tool"))
        others = [message for message in new if message.role != "tool"]
        turns += [Turn(role=message.role, parts=spoken(message, quote=False)) for message in others]
        return inside, turns

    def _body(self, action: Message) -> Parts:
        """What the model wrote, without the token that ended it."""
        if self._by_text is not None:
            return (markup(self.family.opening + self._by_text.write(action)),)
        assert self._by_turns is not None
        return self._by_turns.written(action)

    def _closes(self, action: Message) -> bool:
        """Whether an action ends its turn: a call whose result continues the turn does not."""
        return not (action.tool_calls and self.stop_strings and text_of(self._body(action)).endswith(self.stop_strings))

    def _end_in_history(self, action: Message) -> str | None:
        if not isinstance(self.dialect, TokenDialect):
            return None
        return self.dialect.ends_in_history(action)

    def _without_prefix(self, parts: Parts) -> Parts:
        """What is left of an action's parts after the prefix; all of them where they do not begin with it."""
        rest = list(parts)
        for part in self._prefix:
            if not rest or rest[0].kind != part.kind or not rest[0].text.startswith(part.text):
                return parts
            left = rest[0].text[len(part.text) :]
            if left and (part.kind == "control" or part is not self._prefix[-1]):
                return parts
            rest[0] = markup(left)
            if not left:
                rest.pop(0)
        return tuple(rest)

    def _without_end(self, completion: Sequence[int]) -> list[int]:
        ids = list(completion)
        if ids and ids[-1] in self.stop_ids:
            ids.pop()
        return ids

    def _delta(self, written: Written, opened: bool, only: Source | None = None) -> Delta:
        draft = _Draft()
        for source, parts in written:
            ids, images = self._placed(parts)
            draft.add(ids, (Span(start=0, end=len(ids), source=only or source),), images)
        if opened and self._prefix:
            ids = self.encoder.ids(self._prefix)
            draft.add(ids, (Span(start=0, end=len(ids), source="forced"),))
        return Delta(
            ids=tuple(draft.ids), spans=tuple(draft.spans), images=tuple(draft.images), continues_turn=not opened
        )

    def _placed(self, parts: Parts) -> tuple[tuple[int, ...], tuple[PlacedImage, ...]]:
        """Ids, pictures written out among them, and where each picture's placeholders begin.

        No text becomes a placeholder, so those among the ids are the pictures', in order.
        """
        shown = [part.image for part in parts if part.image is not None]
        if not shown or self.vision is None:
            return self.encoder.ids(parts), ()
        written: list[Part] = []
        for part in parts:
            written += [part] if part.image is None else self.vision.parts((part.image.width, part.image.height))
        ids = self.encoder.ids(written)
        places = [at for at, number in enumerate(ids) if number == self.vision.placeholder]
        images: list[PlacedImage] = []
        for image in shown:
            size = (image.width, image.height)
            images.append(PlacedImage(sha256=image.sha256, shown_size=size, position=places[0]))
            places = places[self.vision.count(size) :]
        return ids, tuple(images)

    def _parts_of(self, prefix: str) -> Parts:
        """The prefix, in which the family's control tokens are meant as such."""
        known = self.encoder.controls
        pictures = self.vision.controls if self.vision is not None else ()
        parts: list[Part] = []
        for piece in known.split(prefix) if prefix else ():
            if piece:
                parts.append(control(piece) if known.fullmatch(piece) and piece not in pictures else markup(piece))
        return tuple(parts)

    def _own_dialect(self) -> Dialect | TokenDialect:
        as_text = "use --dialect hermes or --dialect inline, which write both as text"
        if self.family.native is None:
            raise ConfigError(
                f"the chat template of this model ({self.family.name}) has no place for tool calls and their results",
                hint=as_text,
            )
        doubt = calls_difference(self.family, self.tokenizer)
        if doubt is not None:
            raise ConfigError(
                f"the tokenizer's chat template does not write calls and results as {self.family.name} does: {doubt}",
                hint="use the template the model was published with" if self.family.native_only else as_text,
            )
        return self.family.native

    def _refuse_foreign(self) -> None:
        if self.family.native_only and not self.native:
            name = self.dialect.name
            raise ConfigError(
                f"{self.family.name} writes calls its own way, not as {name}", hint="use --dialect native"
            )


def _thought(so_far: Trajectory) -> bool:
    """Whether an action since the last fork, or the prompt it began with, holds thinking."""
    for step in reversed(so_far.steps):
        if step.action.reasoning is not None or any(message.reasoning is not None for message in step.observation):
            return True
        if step.tokens is not None and not step.tokens.extends:
            break
    return False


def _trimmed(parts: Parts) -> Parts:
    """Without the newlines that set a result off from the turn it would continue."""
    out = list(parts)
    if out and out[0].kind == "markup":
        out[0] = markup(out[0].text.lstrip("\n"))
    if out and out[-1].kind == "markup":
        out[-1] = markup(out[-1].text.rstrip("\n"))
    return tuple(out)


@final
class _Draft:
    """Ids with their sources, while they are put together."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.spans: list[Span] = []
        self.images: list[PlacedImage] = []

    def add(self, ids: Sequence[int], spans: Sequence[Span], images: Sequence[PlacedImage] = ()) -> None:
        """Append ids; their spans join the last one where the source is the same."""
        at = len(self.ids)
        self.ids += ids
        self.images += [replace(image, position=at + image.position) for image in images]
        for span in spans:
            if span.end == span.start:
                continue
            if self.spans and self.spans[-1].source == span.source:
                self.spans[-1] = Span(start=self.spans[-1].start, end=at + span.end, source=span.source)
            else:
                self.spans.append(Span(start=at + span.start, end=at + span.end, source=span.source))

    def sequence(self) -> TokenSequence:
        sources: tuple[Source, ...] = tuple(span.source for span in self.spans for _ in range(span.start, span.end))
        return TokenSequence(
            token_ids=tuple(self.ids),
            loss_mask=tuple(int(source == "model") for source in sources),
            sources=sources,
            logprobs=(0.0,) * len(self.ids),
            images=tuple(self.images),
        )
