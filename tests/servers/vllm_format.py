"""What a vLLM server answers, as JSON: models, completions whole and streamed, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.engine import Generated, Request

if TYPE_CHECKING:
    from vllm_server import VLLMServer

PERMISSION = {
    "id": "modelperm-0",
    "object": "model_permission",
    "created": 1_790_000_000,
    "allow_create_engine": False,
    "allow_sampling": True,
    "allow_logprobs": True,
    "allow_search_indices": False,
    "allow_view": True,
    "allow_fine_tuning": False,
    "organization": "*",
    "group": None,
    "is_blocking": False,
}


def model_card(state: VLLMServer) -> dict[str, Any]:
    """As `/v1/models` lists a model."""
    return {
        "id": state.name,
        "object": "model",
        "created": 1_790_000_000,
        "owned_by": "vllm",
        "root": state.root,
        "parent": None,
        "max_model_len": state.max_model_len,
        "permission": [PERMISSION],
    }


def prompt_ids(state: VLLMServer, request: Mapping[str, Any]) -> list[int]:
    """A prompt is ids or text."""
    prompt = request["prompt"]
    if isinstance(prompt, str):
        return list(state.tokenizer.encode(prompt, add_special_tokens=bool(request.get("add_special_tokens", True))))
    return list(prompt)


def engine_request(state: VLLMServer, request: Mapping[str, Any]) -> Request:
    """The same request for the engine behind the server; what it does not know is as a server's default."""
    ends = frozenset(request.get("stop_token_ids") or ())
    if not request.get("ignore_eos"):
        ends |= {state.tokenizer.eos_token_id}
    return Request(
        prompt=tuple(prompt_ids(state, request)),
        images=tuple(request.get("images", ())),
        max_tokens=request.get("max_tokens", 16),
        temperature=request.get("temperature", 1.0),
        top_p=request.get("top_p", 1.0),
        top_k=max(0, request.get("top_k", 0)),
        seed=request.get("seed") or 0,
        stop_ids=ends,
        stop_strings=tuple(request.get("stop") or ()),
    )


def refuse(state: VLLMServer, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
    """Status and error object for a request that a real server refuses, in its words."""
    if request.get("model") != state.name:
        words = f"The model `{request.get('model')}` does not exist."
        return 404, {"message": words, "type": "NotFoundError", "param": "model", "code": 404}
    given, wanted = len(prompt_ids(state, request)), request.get("max_tokens", 16)
    if given + wanted > state.max_model_len:
        words = (
            f"This model's maximum context length is {state.max_model_len} tokens. However, you requested {wanted} "
            f"output tokens and your prompt contains {given} input tokens, for a total of {given + wanted} tokens. "
            "Please reduce the length of the input prompt or the number of requested output tokens."
        )
        return 400, {"message": words, "type": "BadRequestError", "param": "input_tokens", "code": 400}
    return None


def logprobs_of(state: VLLMServer, request: Mapping[str, Any], reply: Generated) -> list[float]:
    """What the server reports: with top_k=1 nothing but the chosen id is left after processing."""
    alone = state.processed and (request.get("top_k") == 1 or request.get("temperature") == 0)
    return [0.0] * len(reply.logprobs) if alone else list(reply.logprobs)


def logprobs_json(state: VLLMServer, ids: Sequence[int], values: Sequence[float], offset: int = 0) -> dict[str, Any]:
    """The `logprobs` object of the completions API."""
    tokens = [state.tokenizer.decode([token]) for token in ids]
    starts = [offset + sum(map(len, tokens[:index])) for index in range(len(tokens))]
    return {
        "text_offset": starts,
        "token_logprobs": list(values),
        "tokens": tokens,
        "top_logprobs": [{token: value} for token, value in zip(tokens, values, strict=True)],
    }


def stop_reason(request: Mapping[str, Any], text: str, reply: Generated) -> int | str | None:
    """The stop string or stop id that ended it."""
    if reply.finish != "stop":
        return None
    if reply.token_ids[-1] in (request.get("stop_token_ids") or ()):
        return reply.token_ids[-1]
    return next((stop for stop in request.get("stop") or () if stop in text), None)


def whole(state: VLLMServer, request: Mapping[str, Any], reply: Generated) -> dict[str, Any]:
    """A text_completion object."""
    text = state.tokenizer.decode(list(reply.token_ids), skip_special_tokens=request.get("skip_special_tokens", True))
    with_ids = state.with_ids and bool(request.get("return_token_ids"))
    prompt = prompt_ids(state, request)
    scored = request.get("logprobs") is not None
    choice = {
        "index": 0,
        "text": text,
        "logprobs": logprobs_json(state, reply.token_ids, logprobs_of(state, request, reply)) if scored else None,
        "finish_reason": reply.finish,
        "stop_reason": stop_reason(request, text, reply),
        "token_ids": list(reply.token_ids) if with_ids else None,
        "prompt_logprobs": None,
        "prompt_token_ids": prompt if with_ids else None,
        "routed_experts": None,
    }
    return {
        **_head(request),
        "choices": [choice],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": {
            "prompt_tokens": len(prompt),
            "total_tokens": len(prompt) + len(reply.token_ids),
            "completion_tokens": len(reply.token_ids),
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def events(state: VLLMServer, request: Mapping[str, Any], reply: Generated) -> Iterable[dict[str, Any]]:
    """The events of a stream: one token each, the prompt's ids with the first."""
    values = logprobs_of(state, request, reply)
    offset = 0
    for index, token in enumerate(reply.token_ids):
        text = state.tokenizer.decode([token])
        last = index == len(reply.token_ids) - 1
        choice: dict[str, Any] = {
            "index": 0,
            "text": text,
            "logprobs": logprobs_json(state, [token], values[index : index + 1], offset),
            "finish_reason": reply.finish if last else None,
            "stop_reason": stop_reason(request, text, reply) if last else None,
            "prompt_token_ids": prompt_ids(state, request) if index == 0 and state.with_ids else None,
            "token_ids": [token] if state.with_ids else None,
        }
        offset += len(text)
        yield {**_head(request), "choices": [choice]}


def shape(value: Any) -> Any:
    """The keys of a reply and the kinds of its values, of which a request may make more or fewer."""
    if isinstance(value, dict):
        ended = ("top_logprobs", "stop_reason", "finish_reason", "param")  # null or not, as it happened
        return {key: None if key in ended else shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def error_body(message: str, kind: str, code: int) -> bytes:
    """As vLLM words an error."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def _head(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "cmpl-0", "object": "text_completion", "created": 1_790_000_000, "model": request["model"]}
