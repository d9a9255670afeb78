"""Invariants of rendering, for every tokenizer and dialect: extension is exact, text stays text, the loss mask is
the record."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import SamplingParams, ScriptedSampler, rollout
from agent.dialects import dialect_named
from agent.engine import Generated, Request
from agent.families.chatml import END, START
from agent.models import model_folder
from agent.parts import markup, quoted
from agent.renderer import Renderer
from agent.token_sampler import TokenSampler, context_ids
from envs import Message, Step, Task, ToolEnv, Trajectory, assistant, system, user
from tools import ConfigError, Image, Tool, ToolCall, tool

SOUP = [START, END, "<tool_call>", "</code>", "<interpreter>", "\n", "\n\n", " ", "  7", "12", "é", "🙂", "print("]
# SmolLM2's vocabulary lacks some bytes (control characters, the first byte of unassigned planes) and drops them.
characters = st.characters(exclude_categories=["Cc", "Cn", "Co", "Cs"])
soup = st.lists(st.sampled_from(SOUP) | st.text(characters, max_size=4), max_size=8).map("".join)


def replying(result: str) -> Tool:
    """A `python` tool that always says `result`."""

    def python(code: str) -> str:
        """Run Python code."""
        return result

    return tool(python)


def load_tokenizer(spec: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder(spec), local_files_only=True)


@pytest.fixture(
    scope="module", params=[(m, d) for m in ("tiny", "smollm2") for d in ("hermes", "inline")], ids="-".join
)
def renderer(request: pytest.FixtureRequest) -> Renderer:
    spec, dialect = request.param
    return Renderer(load_tokenizer(spec), dialect_named(dialect))


def run(code: str) -> Message:
    return assistant("So:", tool_calls=[ToolCall(id="", name="python", raw="", arguments={"code": code})])


class Typist:
    """An engine that 'samples' given texts; what it was asked for is kept.

    `breaks` are other splits of the same text.
    """

    max_context = 100_000

    def __init__(self, renderer: Renderer, texts: list[str], one_by_one: bool = False) -> None:
        self.renderer, self.texts, self.one_by_one = renderer, texts, one_by_one
        self.asked: list[tuple[int, ...]] = []

    async def generate(self, request: Request, on_ids: Any = None) -> Generated:
        text = self.texts[len(self.asked)]
        self.asked.append(request.prompt)
        encode = self.renderer.tokenizer.encode
        pieces = list(text) if self.one_by_one else [text]  # a sampled text need not be split as the tokenizer would
        ids = [i for piece in pieces for i in encode(piece, add_special_tokens=False, split_special_tokens=True)]
        if not any(stop in text for stop in request.stop_strings):
            ids.append(next(iter(request.stop_ids)))
        return Generated(token_ids=tuple(ids), logprobs=tuple(-0.5 for _ in ids), finish="stop")


def play(renderer: Renderer, prompt: list[Message], actions: list[Message], result: str, **options: Any):
    engine = Typist(renderer, [renderer.dialect.write(a) for a in actions], **options)
    env = ToolEnv(task=Task(id="t", prompt=tuple(prompt)), tools=[replying(result)])
    trajectory = asyncio.run(rollout(env, TokenSampler(renderer, engine), SamplingParams(seed=1)))
    assert trajectory.error is None
    return trajectory, engine


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=soup, code=soup.filter(lambda t: "</code>" not in t), result=soup, whole=st.booleans())
def test_what_the_engine_saw_and_said_is_one_growing_sequence(
    renderer: Renderer, question: str, code: str, result: str, whole: bool
):
    actions = [run(code), run("1"), assistant("Answer: 3")]
    trajectory, engine = play(renderer, [user(question)], actions, result, one_by_one=whole)
    (row,) = trajectory.sequences()
    completions = [step.tokens.completion for step in trajectory.steps if step.tokens]
    for prompt, completion in zip(engine.asked, completions, strict=True):
        assert row.token_ids[: len(prompt) + len(completion)] == prompt + completion
    trained = tuple(i for i, kept in zip(row.token_ids, row.loss_mask, strict=True) if kept)
    assert trained == sum(completions, ())
    assert [step.action.tool_calls[0].arguments for step in trajectory.steps[:2]] == [{"code": code}, {"code": "1"}]
    ends = [i for i, kept in zip(row.token_ids, row.loss_mask, strict=True) if i in renderer.stop_ids and kept]
    assert len(ends) == (1 if renderer.dialect.stop else 3), "the token that closes a turn is trained on"


def test_a_sampler_that_was_not_there_before_goes_on_from_the_record(renderer: Renderer):
    actions = [run("1"), run("2"), run("3"), assistant("Answer: 3")]
    engine = Typist(renderer, [renderer.dialect.write(action) for action in actions])

    class InTurns:
        """Two samplers on one engine: each finds steps that the other sampled."""

        two = (TokenSampler(renderer, engine), TokenSampler(renderer, engine))

        async def sample(self, so_far: Any, *more: Any) -> Any:
            return await self.two[len(so_far.steps) // 2 % 2].sample(so_far, *more)

    env = ToolEnv(task=Task(id="t", prompt=(user("go"),)), tools=[replying("r")])
    (row,) = asyncio.run(rollout(env, InTurns(), SamplingParams(seed=1))).sequences()
    assert len(engine.asked) == 4
    assert all(row.token_ids[: len(prompt)] == prompt for prompt in engine.asked)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(soup)
def test_text_never_becomes_a_special_token_and_comes_back_as_it_was(renderer: Renderer, text: str):
    delta = renderer.start([user(text)], [])
    special = [i for i in delta.ids if i in renderer.stop_ids]
    assert len(special) == 1, "only the turn's own end"
    assert renderer.tokenizer.decode(list(delta.ids), skip_special_tokens=False).startswith(f"{START}user\n{text}{END}")


def test_half_a_surrogate_pair_is_shown_as_what_cannot_be_shown(renderer: Renderer):
    for kind in (quoted, markup):
        assert renderer.encoder.ids((kind("a \ud800 b"),)) == renderer.encoder.ids((kind("a \ufffd b"),))


def test_teaching_an_episode_equals_sampling_the_same_text(renderer: Renderer):
    prompt, actions = [system("Be brief."), user("2+3?")], [run("print(2+3)"), assistant("Answer: 5")]
    sampled, _ = play(renderer, prompt, actions, "5")
    task = Task(id="t", prompt=tuple(prompt), gold=tuple(actions))
    taught = asyncio.run(rollout(ToolEnv(task=task, tools=[replying("5")]), ScriptedSampler()))
    (row,), (recorded,) = renderer.teach(taught), sampled.sequences()
    assert row.token_ids == recorded.token_ids
    assert (row.loss_mask, row.sources) == (recorded.loss_mask, recorded.sources)
    assert renderer.teach(sampled) == sampled.sequences(), "recorded ids are never rendered again"


def test_each_part_says_who_wrote_it(renderer: Renderer):
    trajectory, _ = play(renderer, [user("2+3?")], [run("print(2+3)"), assistant("Answer: 5")], "the result")
    (row,) = trajectory.sequences()
    texts: dict[str, str] = {}
    for source in ("prompt", "model", "tool", "env"):
        texts[source] = renderer.tokenizer.decode(
            [i for i, s in zip(row.token_ids, row.sources, strict=True) if s == source], skip_special_tokens=False
        )
    assert "2+3?" in texts["prompt"] and "python" in texts["prompt"]
    assert "print(2+3)" in texts["model"] and "Answer: 5" in texts["model"]
    assert "the result" in texts["tool"] and "the result" not in texts["model"]
    assert ("assistant" in texts["env"]) != bool(renderer.dialect.stop), "inline results go on with the same turn"


def test_the_prompt_of_a_history_is_the_history_as_it_was_played(renderer: Renderer):
    """Rendering the whole conversation gives the ids that turn by turn extension gave, when the text was split
    normally."""
    trajectory, engine = play(renderer, [user("2+3?")], [run("print(2+3)"), assistant("Answer: 5")], "5")
    history = trajectory.messages[:-1]
    assert renderer.start(history, trajectory.tools).ids == engine.asked[1]


def test_a_step_without_ids_makes_the_next_one_a_fork(renderer: Renderer):
    so_far = Trajectory(task=Task(id="t", prompt=(user("Hi."),)))
    so_far.steps.append(Step(observation=so_far.task.prompt, action=assistant("Hello.")))
    so_far.final = (user("And now?"),)
    step = asyncio.run(
        TokenSampler(renderer, Typist(renderer, ["Bye."])).sample(so_far, so_far.final, SamplingParams())
    )
    assert step.tokens is not None and not step.tokens.extends
    assert "Hello." in renderer.tokenizer.decode(list(step.tokens.added), skip_special_tokens=False)
    so_far.steps.append(step)
    assert context_ids(so_far) == step.tokens.added + step.tokens.completion


def test_pictures_are_refused_by_a_text_model(renderer: Renderer):
    image = Image(sha256="0" * 64, media_type="image/png", width=1, height=1)
    with pytest.raises(ConfigError, match="reads text only"):
        renderer.start([user("Look:", image)], [])


def test_a_tokenizer_of_no_known_family_and_without_a_template_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    )
    with pytest.raises(ConfigError, match="no chat template, and its special tokens"):
        Renderer(bare, dialect_named("hermes"))
