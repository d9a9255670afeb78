"""The endpoint of a vLLM server that takes ids and pictures: each picture is one short run of ids, expanded there."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from PIL import Image as Pillow

from envs import PlacedImage

if TYPE_CHECKING:
    from vllm_server import VLLMServer

PATH = "/inference/v1/generate"


def as_completion_request(state: VLLMServer, request: Mapping[str, Any]) -> dict[str, Any]:
    """The same request for `/v1/completions`, the pictures written out and named beside."""
    vision = state.vision
    assert vision is not None
    short = [state.tokenizer.convert_tokens_to_ids(token) for token in vision.eyes.unexpanded]
    given: list[int] = request["token_ids"]
    ids: list[int] = []
    images: list[PlacedImage] = []
    parts = iter(request["content_parts"])
    at = 0
    while at < len(given):
        if given[at : at + len(short)] != short:
            ids.append(given[at])
            at += 1
            continue
        part = next(parts)
        size = Pillow.open(io.BytesIO(base64.b64decode(part["url"].partition(",")[2]))).size
        whole = vision.ids(size)
        place = len(ids) + whole.index(vision.placeholder)
        images.append(PlacedImage(sha256=part["uuid"], shown_size=size, position=place))
        ids += whole
        at += len(short)
    assert next(parts, None) is None, "a picture that no id stands for"
    asked = {name: request[name] for name in ("model", "stream", "return_token_ids")}
    return {**request["sampling_params"], **asked, "prompt": ids, "images": images}


def as_generated(said: Mapping[str, Any]) -> dict[str, Any]:
    """A reply of `/v1/completions`, or an event of its stream, as this endpoint words it."""
    choice = dict(said["choices"][0])
    scored = choice.get("logprobs") or {}
    choice["logprobs"] = {
        "content": [
            {"token": token, "logprob": value, "bytes": None, "top_logprobs": []}
            for token, value in zip(scored.get("tokens", ()), scored.get("token_logprobs", ()), strict=True)
        ]
    }
    kept = {name: choice[name] for name in ("index", "logprobs", "finish_reason", "token_ids")}
    return {"request_id": said["id"], "choices": [kept], "prompt_token_ids": choice["prompt_token_ids"]}
