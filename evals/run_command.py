"""`evals run`: from what was typed to evaluations, one after the other, and an exit code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.dialects import DIALECTS
from agent.rollout import Limits
from agent.sampler import SamplingParams
from evals.exit_codes import BELOW_GATE, INFRASTRUCTURE, STOPPED
from tools.errors import ConfigError

if TYPE_CHECKING:
    from agent.sampler import Sampler
    from envs.task import Taskset
    from evals.cost import Prices
    from evals.judge import Judge
    from evals.result import EvalResult
    from tools.content import BlobStore


def _o(*names: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    if settings.get("default") is not None and not settings.get("is_flag"):
        settings.setdefault("show_default", True)
    return click.option(*names, **settings)


OPTIONS = (
    # what
    _o("--data", help="File or folder of a benchmark's data: -a data=..."),
    _o("--split", help="Split of a benchmark's data: -a split=..."),
    _o("-n", "--limit", "n", metavar="N|A-B", help="First N tasks, or those numbered A to B from 0. Default: all."),
    _o("--ids", metavar="A,B|@FILE", help="These tasks: ids, or a file with one id a line."),
    _o("--shuffle", is_flag=True, help="Tasks in an order drawn from --seed, before -n is taken."),
    _o("--seed", default=0),
    # how often
    _o("--repeats", "-k", default=1, help="Attempts at each task."),
    _o("--metrics", help="avg@K, pass@K, pass^K, maj@K, for example pass@1,4,maj@N. Default: those that fit -k."),
    # who
    _o("--model", "-m", required=True, help="smollm2, tiny, gold, human, a model folder, a hub id, or openai:NAME."),
    _o("--dialect", type=click.Choice(sorted(DIALECTS)), help="How calls are written. Default: the model's."),
    _o("--base-url", help="An OpenAI-compatible server that serves the model."),
    _o("--threads", type=int, help="CPU threads of a model in this process."),
    _o("--dtype", metavar="TYPE", help="How its weights are held: bfloat16, float16, auto. Default: float32."),
    _o("--device", metavar="NAME", help="Where it runs: cuda, cuda:1, mps. Default: the CPU."),
    _o("--temperature", default=0.0, help="0 is greedy."),
    _o("--top-p", default=1.0),
    _o("--top-k", default=0, help="0 keeps all."),
    _o("--max-tokens", default=512, help="Per action."),
    _o("--thinking-budget", type=int, metavar="N", help="Tokens an action may think before its thinking is closed."),
    _o("--last-thought", default="", help="Words put in before the closing tag."),
    _o("--tools", type=click.Choice(["none"]), help="none: the control, the same tasks without tools."),
    _o("--ablate", type=click.Choice(["tools"]), help="tools: run both, and say what the tools were worth."),
    # how long
    _o("--max-turns", default=16, help="Actions per episode."),
    _o("--max-calls", type=int, help="Tool calls per episode."),
    _o("--time-limit", type=float, help="Seconds per episode. Default: none."),
    _o("--token-budget", type=int, help="Tokens sampled per episode."),
    _o("--cost-limit", type=float, metavar="USD", help="Per episode; needs --price."),
    _o("--price", metavar="IN,OUT", help="US dollars for a million tokens of the model."),
    _o("--max-cost", type=float, metavar="USD", help="Of the whole run, judge included; exit 3 past it."),
    _o("--max-time", type=float, metavar="S", help="Of this session; exit 3 past it."),
    # a judge
    _o("--judge", help="A model that judges answers, as for --model; its score is the headline."),
    _o("--judge-url", help="The server of the judge. Default: --base-url."),
    _o("--judge-price", metavar="IN,OUT", help="US dollars for a million tokens of the judge."),
    _o("--judge-mode", type=click.Choice(["auto", "rule", "llm"]), default="auto", help="auto: if the rule says no."),
    # the machine
    _o("--concurrency", "-c", default=16, help="Episodes at once, and most requests at once."),
    _o("--max-retries", default=8, help="Of a request that a server failed."),
    _o("--request-timeout", default=600.0, help="Seconds for one answer of a server."),
    # promises
    _o("--fail-on-error", default="0.1", metavar="SHARE|N|never", help="Exit 2 when more samples than this erred."),
    _o("--fail-under", type=float, metavar="X", help="Exit 4 when the score is below X."),
    _o("--gate", type=click.Choice(["point", "ci"]), default="point", help="ci: only when all of the interval is."),
    _o("--on-error", type=click.Choice(["zero", "skip"]), default="zero", help="How --fail-under counts errors."),
    # out
    _o("--out", type=click.Path(path_type=Path), help="Run folder. Default: runs/evals/TASKSET-MODEL."),
    _o("--fresh", is_flag=True, help="Start over: forget what the run folder holds."),
    _o("--dry-run", is_flag=True, help="Say what would be played, and play nothing."),
    _o("--json", "as_json", is_flag=True, help="Print results.json instead of the table."),
    _o("--quiet", "-q", is_flag=True, help="No progress."),
)


SAMPLING = ("max_tokens", "thinking_budget", "last_thought", "temperature", "top_p", "top_k")


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `evals run`, in this order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def run_all(names: str, arguments: dict[str, str], asked: dict[str, Any]) -> int:
    """Evaluate each of the comma-separated tasksets; the worst exit code."""
    from evals.adaptive import InfrastructureError

    parts = [name for name in names.split(",") if name]
    if not parts:
        raise ConfigError("no taskset is named", hint="evals list")
    refuse_what_cannot_be_kept(asked)
    if len(parts) > 1 and asked["out"] is not None:
        asked = {**asked, "root": asked["out"]}
    worst = 0
    for name in parts:
        try:
            code = _run_one(name, arguments, asked)
        except InfrastructureError as error:
            click.echo(f"error: {error}", err=True)
            click.echo(f"hint: {error.hint}", err=True)
            return INFRASTRUCTURE
        worst = max(worst, code)
    return worst


def refuse_what_cannot_be_kept(asked: dict[str, Any]) -> None:
    """Raise `ConfigError` for options that would be found wrong, or silently left out, only once all is played."""
    errors_allowed(asked["fail_on_error"], 1)
    if asked["fail_under"] is not None and math.isnan(asked["fail_under"]):
        raise ConfigError("--fail-under is no number")
    if asked["ablate"] and asked["tools"] == "none":
        raise ConfigError("--ablate tools plays with and without tools; --tools none leaves nothing to compare")
    if asked["max_retries"] < 0:
        raise ConfigError(f"--max-retries is {asked['max_retries']}; it must be 0 or more")
    for option in ("time_limit", "token_budget", "cost_limit", "max_cost", "max_time"):
        value = asked[option]
        if value is not None and not value > 0:
            raise ConfigError(f"--{option.replace('_', '-')} is {value:g}; it must be above 0")
    refuse_without_judge(asked)


def refuse_without_judge(asked: dict[str, Any]) -> None:
    """Raise `ConfigError` for what is said of a judge where there is none."""
    said = {"--judge-url": asked["judge_url"], "--judge-price": asked["judge_price"]}
    said["--judge-mode llm"] = asked["judge_mode"] == "llm"
    for option, given in said.items():
        if given and not asked["judge"]:
            raise ConfigError(f"{option} needs --judge")


def _run_one(name: str, given: dict[str, str], asked: dict[str, Any]) -> int:
    """One taskset, and the same without tools where that was asked for."""
    from envs.find import find_taskset, held_out, hide_tools

    arguments = {**held_out(name), **given}
    taskset = chosen(find_taskset(name, arguments), asked["ids"], asked["n"], asked["shuffle"], asked["seed"])
    bare = asked["tools"] == "none"
    out = default_out(name, asked["model"], asked["tools"], selection_of(asked))
    out = asked["root"] / out.name if "root" in asked else asked["out"] or out
    if asked["dry_run"]:
        click.echo(f"{taskset.name}: {len(taskset.tasks)} tasks x {asked['repeats']} into {out}")
        return 0
    result = measured(hide_tools(taskset) if bare else taskset, name, arguments, out, asked)
    code = exit_code(result, asked)
    if asked["ablate"] and not bare:
        from evals.ablation import ablation, print_ablation

        control = measured(hide_tools(taskset), name, arguments, Path(f"{out}-no-tools"), asked)
        code = max(code, exit_code(control, {**asked, "fail_under": None}))
        found = ablation(out, control.out)
        if not asked["as_json"]:
            print_ablation(found)
        else:
            click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    return code


def measured(taskset: Taskset, name: str, arguments: dict[str, str], out: Path, asked: dict[str, Any]) -> EvalResult:
    """Run or continue one evaluation, and print what came of it."""
    from evals import evaluate
    from evals.cost import MeteredSampler, parse_prices
    from evals.decode import decoder_of, tokenizer_of
    from evals.measures import parse_measures
    from evals.session import StopAt

    sampler = model_sampler(asked["model"], asked["base_url"], asked, taskset.blobs)
    # A server's address does not say which tokens its model knows.
    tokenizer = {"tokenizer": tokenizer_of(sampler)} if asked["model"].startswith("vllm:") else {}
    prices = parse_prices(asked["price"]) if asked["price"] else None
    judge = judge_of(asked)
    if prices is None and (asked["cost_limit"] or asked["max_cost"]):
        raise ConfigError("a limit on cost needs prices", hint="--price IN,OUT in US dollars for a million tokens")
    if prices is not None and asked["cost_limit"]:
        played: Sampler = MeteredSampler(sampler, prices, asked["cost_limit"])
    else:
        played = sampler
    result = evaluate(
        taskset,
        played,
        out=out,
        params=SamplingParams(**{key: asked[key] for key in SAMPLING}),
        limits=Limits(
            max_turns=asked["max_turns"],
            max_calls=asked["max_calls"],
            max_tokens=asked["token_budget"],
            timeout_s=asked["time_limit"],
        ),
        repeats=asked["repeats"],
        seed=asked["seed"],
        concurrency=asked["concurrency"],
        progress=not asked["quiet"],
        about={**about(name, arguments, asked, prices), **tokenizer},
        fresh=asked["fresh"],
        decode=decoder_of(sampler),
        measures=parse_measures(asked["metrics"], asked["repeats"]) if asked["metrics"] else None,
        prices=prices,
        stop_at=StopAt(cost=asked["max_cost"], seconds=asked["max_time"]),
        judge=judge,
    )
    if asked["as_json"]:
        click.echo(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        from evals.show import print_result

        print_result(result)
    return result


def about(name: str, arguments: dict[str, str], asked: dict[str, Any], prices: Prices | None) -> dict[str, Any]:
    """What else decides an outcome. A limit on cost makes the prices matter."""
    limit = {"usd": asked["cost_limit"], "prompt": prices.prompt, "sampled": prices.sampled} if prices else {}
    return {
        "model": asked["model"],
        "dialect": asked["dialect"] or "",
        "base_url": asked["base_url"] or "",
        "source": name,
        "taskset_args": arguments,
        "cost_limit": limit if asked["cost_limit"] else {},
    }


def model_sampler(spec: str, base_url: str | None, asked: dict[str, Any], blobs: BlobStore | None = None) -> Sampler:
    """The policy or a judge; a server's behind a gate. `blobs` holds the pictures of the prompts."""
    from agent.chat import ChatSampler
    from agent.models import sampler_for
    from evals.adaptive import PatientSampler

    options = {name: asked[name] for name in ("dialect", "threads", "dtype", "device")}
    sampler = sampler_for(spec, base_url=base_url, timeout_s=asked["request_timeout"], **options)
    if not isinstance(sampler, ChatSampler):
        return sampler
    sampler.blobs = blobs
    return PatientSampler(sampler, asked["concurrency"], retries=asked["max_retries"])


def judge_of(asked: dict[str, Any]) -> Judge | None:
    """The judge, where one is asked for."""
    if not asked["judge"] or asked["judge_mode"] == "rule":
        return None
    from evals.cost import parse_prices
    from evals.judge import Judge

    url = asked["judge_url"] or (asked["base_url"] if not asked["judge"].startswith("openai:") else None)
    return Judge(
        model_sampler(asked["judge"], url, {**asked, "dialect": None, "dtype": None, "device": None}),
        asked["judge"],
        mode=asked["judge_mode"],
        prices=parse_prices(asked["judge_price"]) if asked["judge_price"] else None,
    )


def exit_code(result: EvalResult, asked: dict[str, Any]) -> int:
    """0, or the code of the promise that was not kept, said on stderr."""
    if result.errors > errors_allowed(asked["fail_on_error"], result.samples):
        first = f"; the first: {result.first_error}" if result.first_error else ""
        click.echo(f"error: {result.errors} of {result.samples} samples ended in an error{first}", err=True)
        click.echo("hint: the same command runs them again; --fail-on-error sets the share that is accepted", err=True)
        return INFRASTRUCTURE
    if result.stopped:
        click.echo(
            f"error: stopped by --{result.stopped.replace('_', '-')} with {result.samples} of "
            f"{result.n * result.repeats} samples",
            err=True,
        )
        return STOPPED
    skip, ci = asked["on_error"] == "skip", asked["gate"] == "ci"
    score = result.accuracy if skip else result.accuracy_errors_zero
    upper = (result.ci95 if skip else result.ci95_errors_zero)[1]
    reached = upper if ci and not math.isnan(upper) else score
    if asked["fail_under"] is not None and not reached >= asked["fail_under"]:
        what = f"the score {score:.4f}" + (f" (interval up to {upper:.4f})" if ci else "")
        click.echo(f"error: {what} is below --fail-under {asked['fail_under']:g}", err=True)
        return BELOW_GATE
    return 0


def errors_allowed(said: str, samples: int) -> float:
    """How many samples may err: `never` fails on none, a share below 1 on that many of the samples, N on N.

    >>> errors_allowed("0.1", 50), errors_allowed("3", 50), errors_allowed("never", 50)
    (5.0, 3.0, inf)
    """
    if said == "never":
        return math.inf
    try:
        value = float(said)
    except ValueError as error:
        raise ConfigError(f"--fail-on-error is {said!r}", hint="a share such as 0.1, a number, or never") from error
    if not value >= 0:
        raise ConfigError(f"--fail-on-error is {said!r}", hint="a share such as 0.1, a number, or never")
    return value * samples if value < 1 else value


def chosen(taskset: Taskset, ids: str | None, span: str | None, shuffle: bool, seed: int) -> Taskset:
    """The tasks that were asked for. Raises `ConfigError` for an unknown id or an empty choice."""
    import random
    from dataclasses import replace

    from tools.errors import nearest

    tasks = list(taskset.tasks)
    if ids is not None:
        wanted = ids_of(ids)
        known = {task.id: task for task in tasks}
        missing = next((id for id in wanted if id not in known), None)
        if missing is not None:
            raise ConfigError(f"{taskset.name} has no task {missing!r}", hint=nearest(missing, list(known)[:2000]))
        tasks = [known[id] for id in wanted]
    if shuffle:
        random.Random(seed).shuffle(tasks)
    if span is not None:
        match = re.fullmatch(r"(?:(\d+)-)?(\d+)", span)
        if match is None:
            raise ConfigError(f"-n is {span!r}", hint="a number of tasks, or A-B counted from 0")
        first, last = int(match[1] or 0), int(match[2]) if match[1] else int(match[2]) - 1
        if not 0 <= first <= last or first >= len(tasks):
            raise ConfigError(f"-n {span} takes none of {len(tasks)} tasks")
        tasks = tasks[first : last + 1]
    return replace(taskset, tasks=tasks)


def ids_of(said: str) -> list[str]:
    """`a,b`, or the lines of `@file`."""
    if said.startswith("@"):
        lines = Path(said[1:]).read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip()]
    return [id for id in said.split(",") if id]


def selection_of(asked: dict[str, Any]) -> str:
    """A choice that a longer run of the same tasks would not hold, as part of a folder's name."""
    import hashlib

    ids = f"ids-{hashlib.sha256(asked['ids'].encode()).hexdigest()[:8]}" if asked["ids"] else ""
    span = f"n{asked['n']}" if asked["n"] and "-" in asked["n"] else ""
    shuffled = f"shuffled-{asked['seed']}" if asked["shuffle"] else ""
    return "-".join(filter(None, (ids, shuffled, span)))


def default_out(taskset: str, model: str, tools: str | None, selection: str = "") -> Path:
    """runs/evals/TASKSET-MODEL in plain characters.

    >>> str(default_out("tasks/mine.py:hard", "runs/demo/sft/", "none"))
    'runs/evals/mine-hard-runs-demo-sft-no-tools'
    """
    name = re.sub(r"^.*[/\\]", "", taskset.replace(".py:", "-"))
    parts = [name, model.strip("/."), *(["no-tools"] if tools == "none" else []), *([selection] if selection else [])]
    return Path("runs/evals") / re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))
