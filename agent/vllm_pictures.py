"""Prompts with pictures for a vLLM server: ids and picture files, through its endpoint for tokens in and tokens out.

The server expands each picture into placeholders by itself. So it is sent the prompt with each picture as the one token
it expands, and what it made of that comes back with the reply and is compared with what stands in the record.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any, cast

from agent.engine import Request
from agent.vision import Vision
from tools.errors import ConfigError

PATH = "/inference/v1/generate"
HINT = "start it with --enable-scale-out; `make serve` does so for a model that sees"


def sent(request: Request, vision: Vision) -> Request:
    """The request with neutral ids in place of placeholders that stand for no picture: the server would expand them."""
    places = set(vision.places(request.prompt, request.images))
    prompt = tuple(
        vision.neutral if number == vision.placeholder and at not in places else number
        for at, number in enumerate(request.prompt)
    )
    return replace(request, prompt=prompt)


def body(request: Request, vision: Vision, model: str, max_tokens: int, stream: bool) -> dict[str, Any]:
    """What is posted to `PATH`. Raises `ConfigError` for a picture whose file is in no store."""
    parts: list[dict[str, Any]] = []
    for image in request.images:
        data = vision.find(image.sha256)
        if data is None:
            raise ConfigError(f"the picture {image.sha256[:12]} is in no blob store", hint="Taskset.blobs names it")
        url = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"  # decoders go by the bytes
        parts.append({"type": "image_url", "url": url, "uuid": image.sha256})
    settings: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": request.seed,
        "stop_token_ids": sorted(request.stop_ids),
        "ignore_eos": True,
        "logprobs": 0,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "include_stop_str_in_output": True,
    }
    if request.stop_strings:
        settings["stop"] = list(request.stop_strings)
    return {
        "model": model,
        "token_ids": vision.unexpanded(request.prompt, request.images),
        "content_parts": parts,
        "sampling_params": settings,
        "return_token_ids": True,
        "stream": stream,
    }


def as_completion(said: Any) -> Any:
    """A reply of `PATH`, or a piece of one, in the form of `/v1/completions`; anything else as it is."""
    message = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    if not message.get("choices"):
        return said  # pyright: ignore[reportUnknownVariableType]
    choice: dict[str, Any] = dict(message["choices"][0])
    scored: dict[str, Any] = choice.get("logprobs") or {}
    content: list[dict[str, Any]] = scored.get("content") or []
    choice["logprobs"] = {"token_logprobs": [one.get("logprob") for one in content]}
    choice["prompt_token_ids"] = message.get("prompt_token_ids")
    return {**message, "choices": [choice]}


def refuse_other_prompt(request: Request, came_back: Any, finished: bool) -> None:
    """Raise `ConfigError` where the server wrote a prompt's pictures otherwise than they stand in the record, or where
    a whole reply does not say how: asked again, it would not say it either."""
    if came_back is None and finished:
        raise ConfigError(
            "the server does not say which prompt it made of ids and pictures, so the record could not be held against "
            "it",
            hint="it must return prompt_token_ids, as vLLM does; `make serve` starts one",
        )
    if came_back is None or tuple(came_back) == request.prompt:
        return
    raise ConfigError(
        f"the server makes {len(came_back)} tokens of a prompt that has {len(request.prompt)} here: it writes pictures "
        "otherwise",
        hint="serve the folder that the image processor here comes from, without --mm-processor-kwargs",
    )
