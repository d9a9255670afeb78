"""A policy behind any OpenAI-compatible chat server: vLLM, SGLang, llama.cpp, Ollama, or a hosted API."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast, final

from agent.chat_format import Conversation, native, read_call, through_dialect
from agent.chat_reply import ChatReply, whole_text
from agent.dialect import Dialect
from agent.engine import ServerError
from agent.per_loop import PerLoop
from agent.sampler import ContextFull, SamplingParams, actions_before
from agent.token_sampler import context_ids
from envs.message import Message, assistant
from envs.trajectory import Finish, Span, Step, StepTokens, Trajectory
from tools.content import BlobStore
from tools.errors import ConfigError
from tools.tool import ToolCall

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion


@final
class ChatSampler:
    """Messages in, one chat completion out.

        sampler = ChatSampler("Qwen/Qwen3-8B", base_url="http://127.0.0.1:8000/v1")
        trajectory = await rollout(env, sampler)

    The sampled text streams where the caller passes `on_text`. Without ids from the server `Step.tokens` is None and
    `Step.usage` holds its counts; with them (vLLM: `return_token_ids=True`) the ids are recorded, and `extends` is True
    exactly when the prompt the server rendered begins with the previous prompt and completion.

    Sampling settings that the API does not know are sent only when set (`top_k`, `extra_body`): a server may have
    defaults of its own for them (vLLM reads a model's generation_config; `--generation-config vllm` turns that off).
    Seeds are folded to 31 bits, which every server can hold.

    Raises `ConfigError` where the setup is wrong (no server there, no key, no such model, a request the server
    refuses), `ContextFull` where the server says that the prompt is too long, `ServerError` for the rest.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        blobs: BlobStore | None = None,
        *,
        dialect: Dialect | None = None,
        return_token_ids: bool = False,
        logprobs_mode: Literal["raw", "processed"] = "raw",
        timeout_s: float = 600.0,
        max_retries: int = 4,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe the server; nothing is sent yet.

        Args:
            model: The name the server knows it by.
            base_url: Up to and with `/v1`. None: the environment's OPENAI_BASE_URL, else api.openai.com.
            api_key: None: the environment's OPENAI_API_KEY. A server of one's own may need none.
            blobs: Where the pictures of the conversation are stored.
            dialect: For a server or model without tool support: calls and results are written as text.
            return_token_ids: Ask for ids and log-probs (vLLM's extension; other servers may refuse the request).
            logprobs_mode: What the server's log-probs are: before the temperature (`raw`, vLLM's default) or after it.
            timeout_s: Longest wait for an answer to begin, retries included, and for each later piece of a stream.
            max_retries: Tries again after a failed connection, 408, 409, 429 (its Retry-After is honoured) and 5xx.
            extra_body: More fields of the request, such as `{"chat_template_kwargs": {"enable_thinking": False}}`.
        """
        self.model = model
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")
        self._hosted = self.base_url.startswith("https://api.openai.com")
        self._api_key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        self.blobs = blobs
        self.dialect = dialect
        self.return_token_ids = return_token_ids
        self.logprobs_mode = logprobs_mode
        self.timeout_s = timeout_s
        self.max_retries = max_retries
        self.extra_body = dict(extra_body or {})
        self._reasoning_field: str | None = None  # known once a reply carries one: servers disagree on the name
        self._clients = PerLoop(self._lifetime)

    async def sample(
        self,
        so_far: Trajectory,
        new: tuple[Message, ...],
        params: SamplingParams,
        on_text: Callable[[str], None] | None = None,
    ) -> Step:
        """See `Sampler.sample`."""
        if self.dialect is not None:
            conversation = through_dialect(so_far.messages, so_far.tools, self.dialect, self.blobs)
        else:
            conversation = native(so_far.messages, so_far.tools, self.blobs, self._reasoning_field)
        reply = await self._ask(self._request(conversation, params), on_text)
        self._reasoning_field = reply.reasoning_field or self._reasoning_field
        return Step(
            observation=new,
            action=self._action(reply, so_far),
            finish=self._finish(reply.finish),
            tokens=self._tokens(reply, so_far, new),
            usage=reply.usage,
        )

    def _request(self, conversation: Conversation, params: SamplingParams) -> dict[str, Any]:
        if params.thinking_budget is not None:
            raise ConfigError(
                f"a chat server cannot be made to close its thinking after {params.thinking_budget} tokens",
                hint="use vllm:URL, or the server's own setting for it through extra_body",
            )
        request: dict[str, Any] = {
            "model": self.model,
            "messages": conversation.messages,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_completion_tokens" if self._hosted else "max_tokens": params.max_tokens,
        }
        extra = dict(self.extra_body)
        if conversation.tools:
            request["tools"] = list(conversation.tools)
        if params.seed is not None:
            request["seed"] = params.seed % 2**31
        if params.top_k:
            extra["top_k"] = params.top_k
        if self.dialect is not None and self.dialect.stop:
            request["stop"] = list(self.dialect.stop)
        if conversation.open_turn:
            extra |= {"add_generation_prompt": False, "continue_final_message": True}
        if self.return_token_ids:
            if self.logprobs_mode == "raw" and params.temperature not in (0, 1):
                raise ConfigError(
                    f"the temperature is {params.temperature:g}, and the server's log-probs are those of temperature 1",
                    hint="sample at temperature 1, or serve with --logprobs-mode processed_logprobs and say "
                    "logprobs_mode='processed'",
                )
            request["logprobs"] = True
            extra["return_token_ids"] = True
        if extra:
            request["extra_body"] = extra
        return request

    async def _ask(self, request: dict[str, Any], on_text: Callable[[str], None] | None) -> ChatReply:
        """Send one request and read the whole reply."""
        import openai

        reply = ChatReply()
        begun = False
        # A piece holds a token and counts as some 300 characters; a server that sends more than that never ends.
        most = (1 << 20) + 1024 * request.get("max_tokens", request.get("max_completion_tokens", 0))
        deadline = asyncio.timeout(self.timeout_s)
        try:
            completions = (await self._clients.get()).chat.completions
            if on_text is None:
                async with deadline:
                    reply.take_whole(cast("ChatCompletion", await completions.create(**request)))
                return reply
            async with deadline:
                stream = await completions.create(**request, stream=True, stream_options={"include_usage": True})
                begun = True
            async with stream:
                kind = stream.response.headers.get("content-type", "")
                if not kind.startswith("text/event-stream"):
                    raise ValueError(f"content type {kind}")
                pieces = aiter(stream)
                while True:
                    deadline = asyncio.timeout(self.timeout_s)
                    async with deadline:
                        chunk = await anext(pieces, None)
                    if chunk is None:
                        break
                    text = reply.take_chunk(chunk)
                    if text:
                        on_text(text)
                    if reply.size > most:
                        raise ServerError(f"{self.base_url} sent more than {most} characters, and no end")
            if reply.finish is None:
                raise ServerError(f"{self.base_url} closed the stream before the reply was finished")
            return reply
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise ServerError(f"{self.base_url} did not answer within {self.timeout_s:g} seconds") from error
        except openai.APIError as error:
            self._explain(error, begun)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # HTML, or JSON of another shape
            raise ConfigError(
                f"{self.base_url} answered with something that is not a chat completion ({type(error).__name__})",
                hint="the base URL of an OpenAI-compatible server usually ends in /v1",
            ) from error

    def _explain(self, error: Exception, begun: bool) -> NoReturn:
        """Say whose fault a failed request is, without the key."""
        import openai

        at = self.base_url
        if isinstance(error, openai.APITimeoutError):
            raise ServerError(f"{at} did not answer within {self.timeout_s:g} seconds") from error
        if isinstance(error, openai.APIConnectionError):
            if begun or not type(error.__cause__).__name__.startswith("Connect"):  # httpx or httpx2, by its release
                raise ServerError(f"{at} closed the connection before the reply was finished") from error
            raise ConfigError(
                f"no server answers at {at} ({error.__cause__ or error})",
                hint="is it running, and is --base-url right?",
            ) from error
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            raise ConfigError(
                f"{at} refused the API key (HTTP {error.status_code})",
                hint="set OPENAI_API_KEY to the key of that server",
            ) from error
        said = self._without_key(str(getattr(error, "message", error)))
        if isinstance(error, openai.NotFoundError):
            raise ConfigError(f"{at} knows no model {self.model!r}, or the path is wrong: {said}") from error
        if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError) or (
            isinstance(error, openai.APIStatusError) and error.status_code == 413
        ):
            if _means_context_full(error):
                raise ContextFull from error
            raise ConfigError(f"{at} refused the request: {said}") from error
        raise ServerError(f"{at} failed: {said}") from error

    def _without_key(self, text: str) -> str:
        return text.replace(self._api_key, "***") if self._api_key else text

    def _action(self, reply: ChatReply, so_far: Trajectory) -> Message:
        turn = actions_before(so_far)
        text, reasoning = whole_text(reply.text), whole_text(reply.reasoning) or None
        if self.dialect is not None:
            action = self.dialect.parse(_with_stop(text, reply, self.dialect, so_far), so_far.tools)
            named = tuple(replace(call, id=f"call_{turn}_{i}") for i, call in enumerate(action.tool_calls))
            return replace(action, reasoning=reasoning or action.reasoning, tool_calls=named)
        used = {call.id for message in so_far.messages for call in message.tool_calls}
        calls: list[ToolCall] = []
        for index, part in enumerate(reply.calls):
            fresh = part.id and part.id not in used  # some servers repeat theirs, or send none
            call_id = part.id if fresh else f"call_{turn}_{index}"
            used.add(call_id)
            calls.append(read_call(call_id, part.name, whole_text(part.arguments)))
        return assistant(text, reasoning=reasoning, tool_calls=calls)

    def _finish(self, reason: str | None) -> Finish:
        if reason == "length":
            return "length"
        if reason in (None, "content_filter", "abort", "error"):
            raise ServerError(f"{self.base_url} cut the reply short (finish_reason {reason or 'missing'})")
        return "stop"

    def _tokens(self, reply: ChatReply, so_far: Trajectory, new: tuple[Message, ...]) -> StepTokens | None:
        prompt, completion = tuple(reply.prompt_ids), tuple(reply.ids)
        if not prompt or len(completion) != len(reply.logprobs):
            if self.return_token_ids and len(completion) != len(reply.logprobs):
                raise ServerError(
                    f"{self.base_url} returned {len(completion)} token ids and {len(reply.logprobs)} log-probs"
                )
            return None
        known = bool(so_far.steps) and all(step.tokens is not None for step in so_far.steps)
        past = context_ids(so_far) if known else ()
        extends = bool(past) and prompt[: len(past)] == past
        added = prompt[len(past) :] if extends else prompt
        source = "prompt" if not extends else "tool" if all(message.role == "tool" for message in new) else "env"
        spans = (Span(start=0, end=len(added), source=source),) if added else ()
        return StepTokens(
            added=added, completion=completion, logprobs=tuple(reply.logprobs), extends=extends, spans=spans
        )

    async def _lifetime(self) -> AsyncGenerator[AsyncOpenAI]:
        """Open a client until its loop ends: a loop closes the async generators that are still open."""
        import openai

        if self._hosted and not self._api_key:
            raise ConfigError("api.openai.com needs an API key", hint="set OPENAI_API_KEY, or pass --base-url")
        client = openai.AsyncOpenAI(
            api_key=self._api_key or "none",
            base_url=self.base_url,
            timeout=self.timeout_s,
            max_retries=self.max_retries,
        )
        try:
            yield client
        finally:
            await client.close()


def _with_stop(text: str, reply: ChatReply, dialect: Dialect, so_far: Trajectory) -> str:
    """The text with its stop string, which servers cut off: the one they name, or the one that completes a call."""
    if reply.finish == "length":
        return text
    for stop in dialect.stop:
        if reply.stop_reason == stop and not text.endswith(stop):
            return text + stop
    broken = [call for call in dialect.parse(text, so_far.tools).tool_calls if call.error]
    for stop in dialect.stop if broken else ():
        if not any(call.error for call in dialect.parse(text + stop, so_far.tools).tool_calls):
            return text + stop
    return text


def _means_context_full(error: Any) -> bool:
    """Whether a refused request was too long, in the words of vLLM, SGLang, llama.cpp, OpenAI and others."""
    said = f"{getattr(error, 'code', '')} {getattr(error, 'type', '')} {error.message}".lower()
    return bool(re.search(r"context[ _](length|size|window)|maximum context|prompt is too long", said))
