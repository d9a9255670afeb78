"""Pictures through VLLMEngine to a server that expands them: the ids of this process, or a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image as Pillow
from vllm_client import ask, engine_for
from vllm_server import Fault, VLLMServer

from agent.dialects import dialect_named
from agent.engine import Request
from agent.local import TransformersEngine
from agent.models import load_model
from agent.renderer import Renderer
from agent.vision import Vision, vision_of
from envs import user
from tools import BlobStore, Image
from tools.errors import ConfigError

BLOBS = BlobStore()


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any, Vision]:
    model, tokenizer = load_model("tiny_vlm:0")
    vision = vision_of("tiny_vlm:0", tokenizer, BLOBS)
    assert vision is not None
    return model, tokenizer, vision


@pytest.fixture(scope="module")
def server(tiny: tuple[Any, Any, Vision]) -> Any:
    with VLLMServer(*tiny[:2], vision=tiny[2]) as running:
        yield running


def shade(value: int, width: int, height: int) -> Image:
    return BLOBS.put_image(Pillow.linear_gradient("L").resize((width, height)).point(lambda p: (p + value) % 256))


def two_pictures(tiny: tuple[Any, Any, Vision], **settings: Any) -> Request:
    prompt = user("see ", shade(0, 40, 30), " and ", shade(40, 90, 64), "?")
    delta = Renderer(tiny[1], dialect_named("hermes"), vision=tiny[2]).start([prompt], ())
    return Request(**{"prompt": delta.ids, "images": delta.images, "max_tokens": 8, "seed": 3, **settings})


def test_a_server_that_sees_gives_the_ids_and_log_probs_of_this_process(tiny: Any, server: VLLMServer) -> None:
    asked, heard = two_pictures(tiny), []
    (here,) = ask(TransformersEngine(*tiny[:2], vision=tiny[2]), asked)
    (there,) = ask(engine_for(server, vision=tiny[2]), asked)
    (streamed,) = ask(engine_for(server, vision=tiny[2]), asked, on_ids=heard.extend)
    assert here.token_ids == there.token_ids == streamed.token_ids == tuple(heard)
    assert there.logprobs == streamed.logprobs == pytest.approx(here.logprobs, abs=1e-5)


def forget(said: dict[str, Any]) -> None:
    said["prompt_token_ids"] = None


def crop(said: dict[str, Any]) -> None:
    said["prompt_token_ids"] = (said["prompt_token_ids"] or [])[:-1]


@pytest.mark.parametrize(
    ("edit", "sentence"), [(forget, "does not say which prompt it made"), (crop, "it writes pictures otherwise")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_another_prompt_or_none_is_refused_at_once(
    tiny: Any, server: VLLMServer, edit: Any, sentence: str, stream: bool
) -> None:
    engine = engine_for(server, vision=tiny[2])
    sent = len(server.requests)
    server.faults.append(Fault(edit=edit))
    with pytest.raises(ConfigError, match=sentence):
        ask(engine, two_pictures(tiny), on_ids=(lambda ids: None) if stream else None)
    assert len(server.requests) == sent + 1, "it was not asked again"


@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(cut_after=0), Fault(edit=lambda said: said["choices"][0]["token_ids"].pop())]
)
def test_a_reply_that_breaks_off_is_asked_for_again(tiny: Any, server: VLLMServer, fault: Fault) -> None:
    engine = engine_for(server, vision=tiny[2])
    (whole,) = ask(engine, two_pictures(tiny))
    server.faults.append(fault)
    (again,) = ask(engine, two_pictures(tiny))
    assert again == whole and not server.faults


def test_a_server_that_only_reads_is_refused_with_what_to_do(tiny: Any) -> None:
    with VLLMServer(*tiny[:2]) as blind, pytest.raises(ConfigError, match="takes no pictures beside ids") as caught:
        ask(engine_for(blind, vision=tiny[2]), two_pictures(tiny))
    assert "--enable-scale-out" in str(caught.value.hint)
