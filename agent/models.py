"""From what a user writes after `--model` to a model folder, a loaded model, or a sampler.

smollm2         the embedded model (agent/embedded.py)
tiny, tiny:7    a small untrained model made from a seed (agent/tiny.py)
tiny_vlm        a small model that sees, once `training run tiny_vlm` has taught it
tiny_vlm:7      the same before it learnt anything, from a seed (agent/tiny_vlm.py)
path/to/folder  a model in the transformers format, a checkpoint of a run among them; or LoRA adapters for one
owner/name      a model of the Hugging Face hub, fetched on first use
openai:NAME     whatever answers to NAME at an OpenAI-compatible server
vllm:URL        the model of a vLLM server, ids in and out
gold, human     no model: the task's own gold actions; you, at the terminal
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agent.adapters import base_of, with_adapters
from agent.hub import refuse_unreachable
from agent.model_cache import no_progress_bars, read_facts, write_facts
from agent.sampler import HumanSampler, Sampler, ScriptedSampler
from tools.errors import ConfigError, nearest

BUILT_IN = ("smollm2", "tiny", "tiny_vlm")
WITHOUT_MODEL = ("gold", "human")
KEPT = ("tiny_vlm",)
"""Built in, once a recipe has trained them."""
DEFAULT_DIALECT = "hermes"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def model_folder(spec: str) -> str:
    """The folder that `spec` names, made first where it is built in; a hub id comes back unchanged.

    Raises `ConfigError` when there is no such folder, or no model in it.
    """
    if spec == "smollm2":
        from agent.embedded import embedded_folder

        return str(embedded_folder())
    if _is_tiny(spec):
        from agent.tiny import tiny_folder

        return str(tiny_folder(_seed_of("tiny", spec)))
    if _is_tiny_vlm(spec):
        from agent.tiny_vlm import taught_folder, tiny_vlm_folder

        return str(taught_folder() if spec == "tiny_vlm" else tiny_vlm_folder(_seed_of("tiny_vlm", spec)))
    folder = Path(spec).expanduser()
    if folder.is_dir():
        _refuse_empty(folder)
        return str(folder)
    if folder.exists():
        raise ConfigError(f"{spec} is a file, not a model folder", hint="give the folder that holds config.json")
    # owner/name is a path as well: one whose parent is a folder here is taken for a slip, not sent to the hub.
    if _HUB_ID.fullmatch(spec) and not folder.parent.is_dir():
        return spec
    if spec in WITHOUT_MODEL or spec.startswith(("openai:", "vllm:")):
        raise ConfigError(
            f"{spec} plays without weights, and a model is needed here",
            hint=f"give {' or '.join(BUILT_IN)}, a folder or a hub id",
        )
    if re.fullmatch(r"[\w:-]+", spec):
        raise ConfigError(
            f"there is no model {spec!r}, and no folder of that name",
            hint=f"{nearest(spec, (*BUILT_IN, *WITHOUT_MODEL))}; or a folder, a hub id (owner/name), openai:NAME",
        )
    raise ConfigError(
        f"there is no model folder {spec}", hint=f"give an existing folder, a hub id (owner/name), or {_names()}"
    )


def keep_model(name: str, folder: Path) -> Path:
    """Keep a trained model in the user's cache under one of the names `KEPT`."""
    assert name in KEPT
    from agent.tiny_vlm import keep_taught

    return keep_taught(folder)


def check_model(spec: str) -> None:
    """Raise `ConfigError` when `spec` names no model that could be loaded; makes, fetches and loads nothing."""
    if spec == "tiny_vlm":
        model_folder(spec)
    elif _is_tiny_vlm(spec):
        _seed_of("tiny_vlm", spec)
    elif spec != "smollm2" and not _is_tiny(spec):
        source = model_folder(spec)
        if not Path(source).is_dir():
            refuse_unreachable(source, _names())
    elif spec != "smollm2":
        _seed_of("tiny", spec)


def load_model(spec: str, *, dtype: str = "float32", device: str | None = None) -> tuple[Any, Any]:
    """The causal language model and the tokenizer of `spec`; adapters are merged into the model they are for.

    `dtype` is a torch type's name or `auto` (as stored); `device` is where the weights go, the CPU by default. Nothing
    is fetched unless `spec` is a hub id. Raises `ConfigError` when it cannot be loaded or has no chat template that we
    can render.
    """
    source = model_folder(spec)
    base = base_of(source)
    if base is not None:
        return _with_adapters(spec, source, load_model(base, dtype=dtype, device=device))
    local = Path(source).is_dir() or refuse_unreachable(source, _names())
    torch, transformers = _heavy_libraries()
    _check_device(torch, device)
    kind: Any = getattr(torch, dtype, None)
    if dtype != "auto" and not (isinstance(kind, torch.dtype) and kind.is_floating_point):
        raise ConfigError(f"{dtype!r} is no torch type", hint="one of float32, bfloat16, float16, auto")
    options: dict[str, Any] = {"local_files_only": local}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        require_family(tokenizer, spec)
        with no_progress_bars():
            model = _kind_of(transformers, source, options).from_pretrained(source, dtype=dtype, **options)
        require_match(model, tokenizer, spec)
    except ConfigError:
        raise
    except Exception as error:  # a damaged file fails in a way of its own library's
        raise _cannot_load(spec, source, error) from error
    return (model if device is None else model.to(device)), tokenizer


def _kind_of(transformers: Any, source: str, options: dict[str, Any]) -> Any:
    """The class that loads a model's weights: all of them, eyes included, where it is of a family that sees."""
    from agent.vision_families import EYES

    if transformers.AutoConfig.from_pretrained(source, **options).model_type in EYES:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM


def tokenizer_folder(spec: str) -> str:
    """The folder or hub id that has the tokenizer of `spec`: adapters are often saved without one."""
    source = model_folder(spec)
    base = base_of(source)
    return source if base is None or _has_tokenizer(source) else tokenizer_folder(base)


def _with_adapters(spec: str, folder: str, base: tuple[Any, Any]) -> tuple[Any, Any]:
    _, transformers = _heavy_libraries()
    model, tokenizer = base
    try:
        if _has_tokenizer(folder):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            require_family(tokenizer, spec)
        model = with_adapters(model, folder)
        require_match(model, tokenizer, spec)
    except ConfigError:
        raise
    except Exception as error:
        raise _cannot_load(spec, folder, error) from error
    return model, tokenizer


def _has_tokenizer(folder: str) -> bool:
    return (Path(folder) / "tokenizer_config.json").is_file()


def _check_device(torch: Any, device: str | None) -> None:
    """Raise `ConfigError` for a device that is not here, before gigabytes are read for it."""
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"nothing can be put on the device {device!r}: {str(error).splitlines()[0]}",
            hint="cpu, cuda, cuda:1 or mps",
        ) from error


def require_family(tokenizer: Any, spec: str) -> None:
    """Raise `ConfigError` unless the tokenizer is of a family whose turns `agent.renderer` can write exactly."""
    from agent.families.proof import proven_family

    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            f"the model {spec} has no chat template",
            hint="use its instruct version, or save a chat_template.jinja in its folder",
        )
    try:
        proven_family(tokenizer, None, forks=False)
    except ConfigError as error:
        raise ConfigError(f"the model {spec} cannot be rendered: {error}", hint=error.hint) from error


def require_match(model: Any, tokenizer: Any, spec: str) -> None:
    """Raise `ConfigError` where the tokenizer has ids that the model has no embedding for: they are not of one kind."""
    rows, ids = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if ids > rows:
        raise ConfigError(
            f"tokenizer and model of {spec} do not match: the tokenizer has {ids} tokens, the model knows {rows}",
            hint="use the tokenizer that was saved with the model",
        )


def dialect_of(spec: str) -> str | None:
    """The dialect a model was trained with here, or None where nothing says so."""
    if spec in BUILT_IN or _is_tiny(spec) or _is_tiny_vlm(spec):
        return DEFAULT_DIALECT
    folder = Path(spec).expanduser()
    said = read_facts(folder).get("dialect") if folder.is_dir() else None
    if isinstance(said, str):
        return said
    base = base_of(folder)
    return None if base is None else dialect_of(base)


def save_dialect(folder: str | Path, name: str) -> None:
    """Write into a model folder which dialect it was trained with; the folder's other facts stay."""
    write_facts(Path(folder), dialect=name)


def sampler_for(
    spec: str,
    *,
    dialect: str | None = None,
    base_url: str | None = None,
    threads: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    timeout_s: float | None = None,
) -> Sampler:
    """The sampler that `spec` names.

    `dialect` overrides what the model folder says; without either it is `hermes`, and a server parses calls its own
    way. `base_url` sends everything to that OpenAI-compatible server, where `spec` (with or without `openai:`) is the
    model's name: where that is also a model folder here (vLLM names a model by its path), what the folder says holds.
    A `base_url` that begins with `vllm:` is for vLLM servers: turns are rendered here with `spec`'s tokenizer and ids
    are recorded. `timeout_s` is the longest wait for one answer of a server; None leaves it as the sampler has it.

    The others are for a model in this process: `threads` bounds torch's, `device` says where the weights
    go (the CPU by default) and `dtype` how they are held: None is float32, of which bfloat16 is computed where that is
    faster. Raises `ConfigError`.
    """
    if (dtype or device) and (base_url is not None or spec in WITHOUT_MODEL or spec.startswith(("openai:", "vllm:"))):
        raise ConfigError(
            f"{'dtype' if dtype else 'device'} is for a model in this process, and {base_url or spec} is none",
            hint="leave it out",
        )
    if (spec if base_url is None else base_url).startswith("vllm:"):
        from agent.vllm_sampler import vllm_sampler

        return vllm_sampler(spec, base_url, dialect, timeout_s)
    if base_url is not None or spec.startswith("openai:"):
        from agent.chat import ChatSampler
        from agent.dialects import dialect_named

        name = spec.removeprefix("openai:")
        if not name:
            raise ConfigError("openai: needs a model's name", hint="for example openai:gpt-5-mini")
        # A server parses calls itself, unless the caller or the model's folder names the way they are written.
        written = dialect or (dialect_of(name) if Path(name).expanduser().is_dir() else None)
        sampler = ChatSampler(name, base_url=base_url, dialect=None if written is None else dialect_named(written))
        sampler.timeout_s = timeout_s or sampler.timeout_s
        return sampler
    if spec == "gold":
        return ScriptedSampler()
    if spec == "human":
        from agent.human import ask_at_terminal

        return HumanSampler(ask_at_terminal)
    return _local_sampler(spec, dialect or dialect_of(spec) or DEFAULT_DIALECT, threads, dtype, device)


def _local_sampler(spec: str, dialect: str, threads: int | None, dtype: str | None, device: str | None) -> Sampler:
    from agent.dialects import dialect_named

    written = dialect_named(dialect)
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}; it must be 1 or more")
    model, tokenizer = load_model(spec, dtype=dtype or "float32", device=device)
    import torch

    from agent.local import TransformersEngine, bf16_is_fast
    from agent.renderer import Renderer
    from agent.token_sampler import TokenSampler
    from agent.vision import vision_of

    if threads is not None:
        torch.set_num_threads(threads)
    # As in training; a model of a few million parameters spends more on the casts than it saves.
    autocast = torch.bfloat16 if dtype is None and bf16_is_fast() and model.num_parameters() > 20e6 else None
    vision = vision_of(spec, tokenizer)
    engine = TransformersEngine(model, tokenizer, autocast=autocast, vision=vision)
    return TokenSampler(Renderer(tokenizer, written, vision=vision), engine)


def _heavy_libraries() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"running a model here needs {error.name}, which is not installed",
            hint="pip install 'toolweave[train]'; or use a server: openai:NAME with --base-url",
        ) from error
    return torch, transformers


def _is_tiny(spec: str) -> bool:
    return spec == "tiny" or spec.startswith("tiny:")


def _is_tiny_vlm(spec: str) -> bool:
    return spec == "tiny_vlm" or spec.startswith("tiny_vlm:")


def _seed_of(name: str, spec: str) -> int:
    seed = spec.removeprefix(name).removeprefix(":") or "0"
    if not seed.isascii() or not seed.isdigit():
        raise ConfigError(
            f"{spec!r}: the seed after {name}: must be a whole number from 0", hint=f"for example {name}:7"
        )
    return int(seed)


def _names() -> str:
    return ", ".join((*BUILT_IN, *WITHOUT_MODEL, "openai:NAME", "vllm:URL"))


def _refuse_empty(folder: Path) -> None:
    if (folder / "config.json").is_file() or base_of(folder) is not None:
        return
    inside = sorted(path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/config.json"))
    raise ConfigError(
        f"{folder} holds no model: there is no config.json in it",
        hint=f"did you mean {' or '.join(map(str, inside[-3:]))}?" if inside else "give the folder of a saved model",
    )


def _cannot_load(spec: str, source: str, error: Exception) -> ConfigError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(source).is_dir():
        return ConfigError(f"the model in {source} cannot be loaded: {reason}", hint="is the folder complete?")
    return ConfigError(
        f"{spec} cannot be loaded from the Hugging Face hub: {reason}",
        hint=f"is it a causal language model, and is the network up? Without one use {_names()}",
    )
