"""`vllm:URL`: the policy behind vLLM servers, its turns rendered here, every id recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.sampler import Sampler
from tools.errors import ConfigError

PREFIX = "vllm:"


def vllm_sampler(spec: str, base_url: str | None, dialect: str | None, timeout_s: float | None = None) -> Sampler:
    """The sampler of `--model vllm:URL`, or of `--model SPEC --base-url vllm:URL`; several URLs with commas between.

    The tokenizer is that of SPEC (a folder, a hub id, a built-in model), of which no weights are loaded; without one it
    is that of the folder or hub id which the server says it loaded. Raises `ConfigError` for servers that will not do,
    and for a tokenizer that is not theirs.
    """
    from agent.dialects import dialect_named
    from agent.models import DEFAULT_DIALECT, dialect_of
    from agent.renderer import Renderer
    from agent.token_sampler import TokenSampler
    from agent.vision import vision_of
    from agent.vllm import VLLMEngine
    from agent.vllm_start import roots, source_of

    urls = (base_url if base_url is not None else spec).removeprefix(PREFIX)
    written = None if dialect is None else dialect_named(dialect)  # a slip is said before anything is sent
    source = spec if base_url is not None else source_of(roots(urls)[0])
    tokenizer = load_tokenizer(source, told=base_url is None)
    vision = vision_of(source, tokenizer)
    engine = VLLMEngine(urls, tokenizer, for_training=False, vision=vision)
    engine.timeout_s = timeout_s or engine.timeout_s
    said = written or dialect_named(dialect_of(source) or DEFAULT_DIALECT)
    return TokenSampler(Renderer(tokenizer, said, vision=vision), engine)


def load_tokenizer(spec: str, *, told: bool = False) -> Any:
    """The tokenizer of `spec` alone. `told`: the name comes from a server, and may mean nothing on this machine."""
    from agent.models import check_model, require_family, tokenizer_folder

    try:
        check_model(spec)
        source = tokenizer_folder(spec)
    except ConfigError as error:
        if not told:
            raise
        raise ConfigError(
            f"the server loaded its model from {spec}, and there is no such model here to take the tokenizer from",
            hint="give a copy of it: --model FOLDER --base-url vllm:URL",
        ) from error
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ConfigError(
            f"the ids for a vLLM server are made here, with {error.name}, which is not installed",
            hint="pip install 'toolweave[train]'; or let the server render: openai:NAME with --base-url",
        ) from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, local_files_only=Path(source).is_dir())  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    except (OSError, ValueError) as error:
        raise ConfigError(f"the tokenizer of {source} cannot be loaded: {str(error).splitlines()[0]}") from error
    require_family(tokenizer, spec)
    return tokenizer  # pyright: ignore[reportUnknownVariableType]
