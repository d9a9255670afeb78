"""A transformers model in this process, as an engine: the requests that wait share one call of `generate`."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from agent.engine import Generated, Request
from agent.vision import Vision, select_rows
from envs.trajectory import Finish
from tools.errors import ConfigError


def bf16_is_fast() -> bool:
    """True where bfloat16 matrix products run in hardware; elsewhere autocast to it is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())  # pyright: ignore[reportPrivateUsage]


@dataclass(slots=True, kw_only=True, eq=False)
class _Row:
    """One request on its way."""

    request: Request
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Generated]
    on_ids: Callable[[Sequence[int]], None] | None
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    finish: Finish | None = None
    """None while it runs; `length` also when it was cancelled."""

    def tell(self, callback: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # its loop has closed: nobody waits any more
            self.loop.call_soon_threadsafe(callback, *arguments)


@final
class TransformersEngine:
    """`generate` in this process, on its own thread or on the caller's (`serve`).

    Sampling takes one uniform number per request and position, drawn from the request's own seed, through the inverse
    of the distribution function: the noise of a request does not depend on what it was batched with. The logits do, by
    rounding (padding and batch size change the order of sums), so identical samples are promised for identical batches
    only. Requests of one batch with the same prompt share its prefill, and rows that have ended are left out of what
    follows.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_batch: int = 32,
        max_context: int | None = None,
        own_thread: bool = True,
        autocast: torch.dtype | None = None,
        vision: Vision | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.vision = vision
        self.max_batch = max_batch
        self.max_context: int = max_context or model.config.get_text_config().max_position_embeddings
        self.policy_version = 0
        """Recorded with every completion; whoever changes the weights sets it."""
        self.own_thread = own_thread
        self.autocast = autocast
        self._waiting: list[_Row] = []
        self._arrived = threading.Condition()
        self._last_batch = 1
        self._thread: threading.Thread | None = None
        self._closed = False

    async def generate(self, request: Request, on_ids: Callable[[Sequence[int]], None] | None = None) -> Generated:
        """See `Engine.generate`. Raises `ConfigError` for a prompt that is empty or too long."""
        if not 0 < len(request.prompt) < self.max_context:
            raise ConfigError(f"a prompt of {len(request.prompt)} tokens does not fit a context of {self.max_context}")
        if request.images:
            # Before it joins a batch: a picture that cannot be read ends its own episode alone.
            await asyncio.to_thread(self._read, request)
        loop = asyncio.get_running_loop()
        row = _Row(request=request, loop=loop, future=loop.create_future(), on_ids=on_ids)
        with self._arrived:
            if self._closed:
                raise ConfigError("the engine is closed")
            self._waiting.append(row)
            self._arrived.notify_all()
            if self.own_thread and self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="transformers-engine")
                self._thread.start()
        try:
            return await row.future
        except asyncio.CancelledError:
            row.finish = "length"  # seen by the sampling loop, which then stops working on it
            with self._arrived, contextlib.suppress(ValueError):
                self._waiting.remove(row)
            raise

    def serve(self, until: concurrent.futures.Future[Any]) -> None:
        """Run the forward passes on this thread until `until` is done. For a trainer, whose thread owns the weights."""
        if self.own_thread:
            raise ConfigError("serve() is for an engine made with own_thread=False")
        until.add_done_callback(self._wake)
        while not until.done():
            batch = self._take(lambda: until.done())
            if batch:
                self._run(batch)

    def close(self) -> None:
        """Stop the thread; requests that still wait are cancelled."""
        with self._arrived:
            self._closed = True
            abandoned, self._waiting = self._waiting, []
            self._arrived.notify_all()
        for row in abandoned:
            row.tell(row.future.cancel)
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._closed:
            batch = self._take(lambda: self._closed)
            if batch:
                self._run(batch)

    def _wake(self, _: object) -> None:
        with self._arrived:
            self._arrived.notify_all()

    def _take(self, given_up: Callable[[], bool], quiet_s: float = 0.05, patience_s: float = 1.0) -> list[_Row]:
        """The next batch: after a first request, as many as last time, or as come without a pause of `quiet_s`.

        Episodes of one batch come back from their tools one by one; running the first alone would cost as long as all
        together.
        """
        with self._arrived:
            while not self._waiting:
                if given_up():
                    return []
                self._arrived.wait(timeout=1.0)
            deadline = time.monotonic() + patience_s
            while len(self._waiting) < min(self._last_batch, self.max_batch) and time.monotonic() < deadline:
                if not self._arrived.wait(timeout=quiet_s):
                    break
            batch, self._waiting = self._waiting[: self.max_batch], self._waiting[self.max_batch :]
        self._last_batch = len(batch)
        return batch

    def _run(self, batch: list[_Row]) -> None:
        version = self.policy_version
        try:
            self._generate(batch)
        except Exception as error:
            for row in batch:
                row.tell(_fail, row.future, error)
            return
        for row in batch:
            reply = Generated(
                token_ids=tuple(row.ids),
                logprobs=tuple(row.logprobs),
                finish=row.finish or "length",
                policy_version=version,
            )
            row.tell(_settle, row.future, reply)

    def _generate(self, batch: list[_Row]) -> None:
        """Sample every row to its end. When half of the rows have ended, the others go on without them."""
        ids, attention = _padded(batch, self.model.device)
        if self.vision is not None:
            ids = self.vision.without_strays(ids, [(row.request.prompt, row.request.images) for row in batch])
        sampling = _Sampling(batch, self.tokenizer, self.model.device)
        rows = batch
        # A recurrent state cannot be taken apart by rows.
        whole = bool(getattr(self.model, "_is_stateful", False))
        with _evaluating(self.model), torch.no_grad(), self._precision(self.model.device):
            cache = None if whole else self._shared_prefill(batch, ids, attention)
            seen = self._sight(batch, ids) if cache is None else {}
            while rows:
                made = self.model.generate(
                    input_ids=ids,
                    attention_mask=attention,
                    past_key_values=cache,
                    generation_config=_settings(max(row.request.max_tokens - len(row.ids) for row in rows)),
                    logits_processor=LogitsProcessorList([sampling]),
                    stopping_criteria=StoppingCriteriaList([_Enough(rows, whole)]),
                    **seen,
                )
                kept = torch.tensor([i for i, row in enumerate(rows) if row.finish is None], device=ids.device)
                rows = [row for row in rows if row.finish is None]
                if rows:
                    ids, cache = made.sequences[kept], made.past_key_values
                    attention = torch.nn.functional.pad(
                        attention[kept], (0, ids.shape[1] - attention.shape[1]), value=1
                    )
                    cache.batch_select_indices(kept)
                    select_rows(self._unwrapped, kept)
                    sampling.keep(kept)
                    seen = {}  # what the pictures said is in the cache

    def _shared_prefill(self, batch: list[_Row], ids: torch.Tensor, attention: torch.Tensor) -> Any:
        """The cache of all prompts without their last ids, each prompt computed once; None where none repeats."""
        first: dict[Any, int] = {}
        for index, row in enumerate(batch):
            first.setdefault(_shown(row), index)
        if len(first) == len(batch) or min(len(row.request.prompt) for row in batch) < 2:
            return None
        distinct = torch.tensor(list(first.values()), device=ids.device)
        # One step of `generate`, whose token is thrown away, so that positions and masks are whatever the model needs.
        made = self.model.generate(
            input_ids=ids[distinct, :-1],
            attention_mask=attention[distinct, :-1],
            generation_config=_settings(1),
            **self._sight([batch[index] for index in first.values()], ids[distinct, :-1]),
        )
        place = {shown: index for index, shown in enumerate(first)}
        rows = torch.tensor([place[_shown(row)] for row in batch], device=ids.device)
        cache = made.past_key_values
        cache.batch_select_indices(rows)
        select_rows(self._unwrapped, rows)
        return cache

    @property
    def _unwrapped(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    def _read(self, request: Request) -> None:
        """Have the pixels of a request's pictures. Raises `ValueError` where one cannot be read."""
        if self.vision is None:
            raise ConfigError("this model reads text only, and the prompt holds a picture")
        for image in request.images:
            self.vision.pixels(image)

    def _sight(self, rows: Sequence[_Row], ids: torch.Tensor) -> dict[str, Any]:
        """What the model is given beside the ids, so that it sees each row's pictures."""
        if self.vision is None:
            return {}
        return self.vision.inputs(self._unwrapped, [row.request.images for row in rows], ids)

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.autocast)


def _settle(future: asyncio.Future[Generated], reply: Generated) -> None:
    if not future.done():
        future.set_result(reply)


def _fail(future: asyncio.Future[Generated], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


@contextlib.contextmanager
def _evaluating(model: Any) -> Generator[None]:
    """Dropout off and the cache on while sampling, whatever the trainer has set."""
    configs = {id(c): c for c in (model.config, model.config.get_text_config()) if hasattr(c, "use_cache")}.values()
    training, caches = model.training, [config.use_cache for config in configs]
    model.eval()
    for config in configs:
        config.use_cache = True
    try:
        yield
    finally:
        model.train(training)
        for config, cache in zip(configs, caches, strict=True):
            config.use_cache = cache


class _Sampling(LogitsProcessor):
    """Chooses each row's next id, records its log-prob, and leaves `generate` no choice but that id."""

    def __init__(self, rows: list[_Row], tokenizer: Any, device: torch.device) -> None:
        self.rows = rows
        self.tokenizer = tokenizer
        requests = [row.request for row in rows]
        self.temperature = torch.tensor([r.temperature or 1.0 for r in requests], device=device).unsqueeze(1)
        self.greedy = torch.tensor([r.temperature == 0 for r in requests], device=device)
        self.top_p = torch.tensor([r.top_p for r in requests], device=device).unsqueeze(1)
        self.top_k = torch.tensor([r.top_k for r in requests], device=device).unsqueeze(1)
        self.cut = any(r.top_p < 1 or r.top_k > 0 for r in requests)
        self.uniform = torch.zeros((len(rows), max(r.max_tokens for r in requests)))
        for index, r in enumerate(requests):
            noise = torch.Generator().manual_seed(r.seed)
            self.uniform[index, : r.max_tokens] = torch.rand(r.max_tokens, generator=noise)
        self.position = 0

    def keep(self, kept: torch.Tensor) -> None:
        """Go on with these rows alone."""
        self.rows = [self.rows[index] for index in kept.tolist()]
        self.temperature, self.greedy = self.temperature[kept], self.greedy[kept]
        self.top_p, self.top_k = self.top_p[kept], self.top_k[kept]
        self.uniform = self.uniform[kept.cpu()]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """scores: float (rows, vocabulary), the raw logits."""
        logprobs = torch.log_softmax(scores / self.temperature, dim=-1)
        probabilities = logprobs.exp()
        if self.cut:
            probabilities = _cut(probabilities, self.top_p, self.top_k)
        steps = probabilities.cumsum(dim=-1)
        target = self.uniform[:, self.position].to(scores.device).unsqueeze(1) * steps[:, -1:]
        drawn = torch.searchsorted(steps, target, right=True).squeeze(1)
        # Rounding can put the target on the last step; the largest id with any probability is then the one meant.
        last = steps.argmax(dim=-1)
        chosen = torch.where(self.greedy, scores.argmax(dim=-1), torch.minimum(drawn, last))
        taken = logprobs.gather(1, chosen.unsqueeze(1)).squeeze(1)
        self.position += 1
        for row, token, logprob in zip(self.rows, chosen.tolist(), taken.tolist(), strict=True):
            if row.finish is None:
                self._accept(row, token, logprob)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.unsqueeze(1), 0.0)

    def _accept(self, row: _Row, token: int, logprob: float) -> None:
        row.ids.append(token)
        row.logprobs.append(logprob)
        if row.on_ids is not None:
            row.tell(row.on_ids, (token,))
        request = row.request
        if token in request.stop_ids or self._ends_with_stop(row):
            row.finish = "stop"
        elif len(row.ids) >= request.max_tokens:
            row.finish = "length"

    def _ends_with_stop(self, row: _Row) -> bool:
        for stop in row.request.stop_strings:
            # Each token holds at least one byte, so a string of n bytes lies within the last n tokens; only they are
            # decoded.
            tail = self.tokenizer.decode(row.ids[-len(stop.encode()) :], skip_special_tokens=False)
            if stop in tail:
                return True
        return False


def _cut(probabilities: torch.Tensor, top_p: torch.Tensor, top_k: torch.Tensor) -> torch.Tensor:
    """Zero what top-k and top-p leave out. The most likely id is always kept."""
    ordered, order = probabilities.sort(dim=-1, descending=True)
    rank = torch.arange(ordered.shape[-1], device=ordered.device).unsqueeze(0)
    before = ordered.cumsum(dim=-1) - ordered
    keep = (before < top_p) & ((top_k <= 0) | (rank < top_k)) | (rank == 0)
    return torch.zeros_like(probabilities).scatter_(1, order, ordered * keep)


class _Enough(StoppingCriteria):
    """All rows have stopped, met their limit or been cancelled; or half of them have, where rows can be left out."""

    def __init__(self, rows: list[_Row], whole: bool) -> None:
        self.rows = rows
        self.most = 0 if whole else len(rows) // 2

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> torch.BoolTensor:
        left = sum(row.finish is None for row in self.rows)
        return torch.full((len(self.rows),), left <= self.most, device=input_ids.device)  # pyright: ignore[reportReturnType]


def _padded(batch: list[_Row], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts and attention mask, (rows, longest): padded on the left, so that all sample at the last position."""
    longest = max(len(row.request.prompt) for row in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    attention = torch.zeros_like(ids)
    for index, row in enumerate(batch):
        ids[index, longest - len(row.request.prompt) :] = torch.tensor(row.request.prompt)
        attention[index, longest - len(row.request.prompt) :] = 1
    return ids.to(device), attention.to(device)


def _shown(row: _Row) -> object:
    """What a row puts before the model: the same ids may stand for other pictures."""
    return row.request.prompt, tuple((image.sha256, image.shown_size) for image in row.request.images)


def _settings(max_new_tokens: int) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
        return_dict_in_generate=True,
    )
