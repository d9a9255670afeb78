"""What is asked of vLLM servers before anything is sampled from them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

from agent.vllm_reply import Failed, as_failure, problem_with_status
from tools.errors import ConfigError
from tools.record import record

JSON: TypeAlias = dict[str, Any]
PROBE = "  x = 12\n\n\ty naïve £ 你好 🙂 The quick brown"
ADDED = 64
"""How many of a tokenizer's added tokens, the latest, the test text holds: models of one family often differ in nothing
else."""
WAIT_S = 180.0
"""The first request after a start can take long: kernels are compiled and caches filled."""


@record
class Served:
    """What the servers said of themselves."""

    roots: tuple[str, ...]
    model: str
    source: str
    max_context: int
    logprobs_mode: Literal["raw", "processed"]


def roots(urls: str | Sequence[str]) -> tuple[str, ...]:
    """Addresses without `/v1`.

    >>> roots("http://127.0.0.1:8000/v1, http://127.0.0.1:8001/")
    ('http://127.0.0.1:8000', 'http://127.0.0.1:8001')
    """
    given = [url.strip() for url in (urls.split(",") if isinstance(urls, str) else urls)]
    for url in given:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is no server's address", hint="for example http://127.0.0.1:8000")
    return tuple(dict.fromkeys(url.rstrip("/").removesuffix("/v1").rstrip("/") for url in given))


def encrypted(urls: Iterable[str]) -> bool:
    """Whether certificates are needed: reading them takes longer than a short completion."""
    return any(url.startswith("https:") for url in urls)


def ask_servers(addresses: Sequence[str], tokenizer: Any, model: str | None, headers: Mapping[str, str]) -> Served:
    """Ask each server what it serves, and for one token. Raises `ConfigError` for one that will not do."""
    import httpx2

    patience, verify = httpx2.Timeout(WAIT_S, connect=10.0), encrypted(addresses)
    with httpx2.Client(headers=dict(headers), timeout=patience, verify=verify) as client:
        served = [_ask(client, url, tokenizer, model) for url in addresses]
    first = served[0]
    for url, other in zip(addresses, served, strict=True):
        if other.logprobs_mode != first.logprobs_mode or (model is None and other.model != first.model):
            raise ConfigError(
                f"{addresses[0]} and {url} do not serve the same model the same way ({first.model} with "
                f"{first.logprobs_mode} log-probs, {other.model} with {other.logprobs_mode} log-probs)",
                hint="start all servers with the same options",
            )
    return Served(
        roots=tuple(addresses),
        model=first.model,
        source=first.source,
        max_context=min(one.max_context for one in served),
        logprobs_mode=first.logprobs_mode,
    )


def key_headers(api_key: str | None = None) -> dict[str, str]:
    """What shows a server its key: the one given, else the environment's OPENAI_API_KEY."""
    key = api_key or os.environ.get("OPENAI_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def source_of(url: str) -> str:
    """The folder or hub id from which the server at `url` loaded its model, as it says."""
    import httpx2

    asking = httpx2.Timeout(WAIT_S, connect=10.0)
    with httpx2.Client(headers=key_headers(), timeout=asking, verify=encrypted([url])) as client:
        cards: list[JSON] = _send(client, url, "GET", "/v1/models", "", None).get("data") or [{}]
    source: Any = cards[0].get("root")
    if not source:
        raise ConfigError(
            f"{url} does not say which model it loaded", hint="say it: --model FOLDER --base-url vllm:URL"
        )
    return str(source)


def probe_text(tokenizer: Any) -> str:
    """Text whose ids tell tokenizers apart: white space, digits, scripts, and the tokens that were added by name."""
    added: dict[str, int] = tokenizer.get_added_vocab() if tokenizer is not None else {}
    return "".join(sorted(added, key=lambda token: added[token])[-ADDED:]) + PROBE


def _ask(client: Any, url: str, tokenizer: Any, model: str | None) -> Served:
    cards: list[JSON] = _send(client, url, "GET", "/v1/models", model or "", None).get("data") or []
    names = [str(card.get("id")) for card in cards]
    if not cards or (model is not None and model not in names):
        raise ConfigError(
            f"{url} serves {', '.join(names) or 'no model'}" + (f", not {model!r}" if model is not None else "")
        )
    card = cards[names.index(model)] if model is not None else cards[0]
    base = next((one for one in cards if one.get("id") == card.get("parent")), card)  # an adapter names its base
    text = probe_text(tokenizer)
    question: JSON = {
        "model": card["id"],
        "prompt": text,
        "add_special_tokens": False,
        "max_tokens": 1,
        "temperature": 1.0,
        "top_k": 1,
        "logprobs": 0,
        "return_token_ids": True,
    }
    reply = _send(client, url, "POST", "/v1/completions", str(card["id"]), question)
    choice = _first(reply)
    prompt: Any = choice.get("prompt_token_ids")
    ids: Any = choice.get("token_ids")
    scored = cast(JSON, choice.get("logprobs") or {})
    logprobs = cast("list[float]", scored.get("token_logprobs") or [])
    if not prompt or not ids or len(logprobs) != len(ids):
        raise ConfigError(
            f"{url} returns no {'token ids' if not (prompt and ids) else 'log-probs'}, which training needs",
            hint="use vLLM 0.10.2 or newer; to evaluate only, openai:NAME with --base-url needs neither",
        )
    if tokenizer is not None and list(prompt) != list(tokenizer.encode(text, add_special_tokens=False)):
        raise ConfigError(
            f"{url} serves {card['id']} ({base.get('root')}), which splits text into other token ids than the "
            "tokenizer given",
            hint="give the tokenizer of the model that the server loaded",
        )
    if not base.get("max_model_len"):
        raise ConfigError(f"{url} does not say how long a context it holds; it is no vLLM server")
    # With only the likeliest token left, its log-prob is 0 after top-k and below 0 before.
    mode = "processed" if logprobs[0] > -1e-6 else "raw"
    source = str(base.get("root") or card["id"])
    return Served(
        roots=(url,),
        model=str(card["id"]),
        source=source,
        max_context=int(base["max_model_len"]),
        logprobs_mode=mode,
    )


def _send(client: Any, url: str, method: str, path: str, model: str, body: Any) -> JSON:
    """One request; every way in which it can fail is the setup's."""
    try:
        response = client.request(method, f"{url}{path}", json=body)
        if response.status_code != 200:
            problem = problem_with_status(response.status_code, response.headers, response.content, url, model)
            raise problem if isinstance(problem, ConfigError) else Failed(why=str(problem) or "refuses a short prompt")
        said = response.json()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{url} {as_failure(error).why}", hint="is the server running there, and has it loaded its model?"
        ) from error
    if not isinstance(said, dict):
        raise ConfigError(f"{url}{path} answered with JSON that is no vLLM server's")
    return cast(JSON, said)


def _first(reply: Mapping[str, Any]) -> JSON:
    choices: Any = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return {}
    return cast(JSON, choices[0])
