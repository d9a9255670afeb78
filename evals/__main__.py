"""`evals`: run, score, compare, show, view, list, check, export. Starts without torch and without reading data."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agent.cli import our_version, run
from evals.run_command import run_options
from tools.errors import ConfigError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(our_version(), prog_name="evals")
def cli() -> None:
    """Measure a policy on tasks: run, score, compare, show, view, list, check, export."""


def taskset_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and option that name a taskset."""
    command = click.option(
        "-a", "--arg", "args", multiple=True, metavar="KEY=VALUE", help="Argument of the taskset; may be repeated."
    )(command)
    return click.argument("taskset")(command)


@cli.command("run")
@taskset_options
@run_options
def run_command(taskset: str, args: tuple[str, ...], **asked: Any) -> int:
    """Play TASKSET with a model and count. The same command again resumes.

    TASKSET is a name (`evals list`), file.py:function, or several separated by commas. A taskset that trains by default
    is played on its test split; -a split=train overrides. Only what is missing or erred is played again; a changed
    setting is refused.

    Exit codes: 0 finished, 1 a wrong request, 2 a server or disk failed or too many samples erred, 3 stopped by
    --max-cost or --max-time, 4 below --fail-under, 130 interrupted.
    """
    from evals.run_command import run_all

    shorthand = {key: asked.pop(key) for key in ("data", "split")}
    arguments = {**parse_arguments(args), **{key: value for key, value in shorthand.items() if value is not None}}
    return run_all(taskset, arguments, asked)


@cli.command("show")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("id", required=False)
def show_command(folder: Path, id: str | None) -> None:
    """List the episodes of a run, or print one: ID, or ID#REPEAT."""
    from evals.show import show_episode, show_list

    if id is None:
        show_list(folder)
    else:
        show_episode(folder, id)


@cli.command("view")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--port", default=7585, show_default=True, help="0 takes a free one.")
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="Write one page that opens as a file, and serve nothing."
)
@click.option("--episodes", default=200, show_default=True, help="Most episodes of each run in a bundle.")
def view_command(folders: tuple[Path, ...], port: int, bundle: Path | None, episodes: int) -> None:
    """Look at a run, or at two side by side, in a browser: http://127.0.0.1:PORT, until Ctrl-C."""
    from evals.decode import decoder_of_run
    from evals.report import write_bundle
    from evals.run_folder import opened
    from evals.view import Viewer

    if len(folders) > 2:
        raise ConfigError(f"{len(folders)} runs were given", hint="one, or two to compare")
    runs = [opened(path) for path in folders]
    if bundle is not None:
        click.echo(write_bundle(runs, bundle, decodes=[decoder_of_run(run) for run in runs], episodes=episodes))
        return
    viewer = Viewer(runs, port)
    click.echo(f"{viewer.url}  (Ctrl-C ends it)")
    viewer.serve()


@cli.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice(["sft", "atif", "hf", "csv"]))
@click.option("--out", type=click.Path(path_type=Path), help="File, for atif a folder. Default: in the run folder.")
@click.option("--min-score", type=float, help="Leave out lower headline scores. Default: 1 for sft, else none.")
def export_command(folder: Path, to: str, out: Path | None, min_score: float | None) -> None:
    """Write a run's episodes as SFT messages, ATIF documents, a parquet file for HF datasets, or CSV."""
    from evals.export import DEFAULT_NAMES, export
    from evals.run_folder import opened

    where = out or folder / "export" / DEFAULT_NAMES[to]
    count = export(opened(folder), to, where, least=min_score)
    click.echo(f"{count} episodes: {where}")


@cli.command("score")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--replay", is_flag=True, help="Play the recorded actions again, tools and all, for scorers of the world."
)
@click.option("--judge", help="A model that judges answers, as for `evals run --model`.")
@click.option("--judge-url", help="The OpenAI-compatible server of the judge.")
@click.option("--judge-price", metavar="IN,OUT", help="US dollars for a million tokens of the judge.")
@click.option("--judge-mode", type=click.Choice(["auto", "llm"]), default="auto", show_default=True)
@click.option("--concurrency", "-c", default=8, show_default=True, help="Questions to the judge at once.")
def score_command(folder: Path, replay: bool, **asked: Any) -> None:
    """Score a run again without sampling, by the taskset as it is now. Old scores are kept in the log."""
    from evals.run_command import judge_of, refuse_without_judge
    from evals.run_folder import opened
    from evals.score import score
    from evals.show import print_result

    refuse_without_judge(asked)
    rest = {"base_url": None, "dialect": None, "threads": None, "request_timeout": 600.0, "max_retries": 8}
    found = score(opened(folder), replay=replay, judge=judge_of({**rest, **asked}), concurrency=asked["concurrency"])
    print_result(found.result)
    changed = f": {', '.join(found.changed[:20])}" if found.changed else ""
    click.echo(f"{found.scored} episodes scored again, {len(found.changed)} questions changed{changed}")
    if replay:
        click.echo(f"in {found.different} episodes a tool gave another result than before")


@cli.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--metric", help="Score to compare. Default: the runs' headline.")
@click.option("--json", "as_json", is_flag=True)
def compare_command(a: Path, b: Path, metric: str | None, as_json: bool) -> None:
    """Compare runs A and B question by question: wins, losses, exact McNemar, bootstrap interval."""
    from evals.compare import compare, print_comparison

    found = compare(a, b, metric)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        print_comparison(found, str(a), str(b))


@cli.command("check")
@taskset_options
@click.option("-n", "n", default=50, show_default=True, help="Tasks to play; ids are checked on all.")
@click.option("--concurrency", "-c", default=8, show_default=True)
def check_command(taskset: str, args: tuple[str, ...], n: int, concurrency: int) -> int:
    """Prove that TASKSET scores right: gold 1 and without tool errors; wrong, empty and shuffled answers 0."""
    from envs.find import find_taskset
    from evals.check import check

    found = check(find_taskset(taskset, parse_arguments(args)), n=n, concurrency=concurrency, reading=True)
    for problem in found.problems:
        click.echo(f"error: {problem}", err=True)
    click.echo(found.summary)
    if found.note:
        click.echo(found.note)
    return 1 if found.problems else 0


@cli.command("list")
def list_command() -> None:
    """The tasksets that have a name. Beside them run path/file.py:function, any data file (rows.parquet), and
    environments of other projects (verifiers:NAME, openenv:URL).

    What is said to need data takes it by --data: a file, a folder, or hf:OWNER/NAME to fetch it from the hub.
    """
    import textwrap

    from envs.find import known_tasksets

    known = known_tasksets()
    width = max(map(len, known), default=0)
    for name, about in sorted(known.items()):
        line = f"{name:<{width}}  {about}"
        if sys.stdout.isatty():  # a person reads columns, a program reads lines
            columns = max(60, shutil.get_terminal_size().columns)
            line = textwrap.fill(line, columns, subsequent_indent=" " * (width + 2), break_on_hyphens=False)
        click.echo(line)


def parse_arguments(pairs: tuple[str, ...]) -> dict[str, str]:
    """`key=value` pairs; the taskset reads each value as its parameter's type.

    >>> parse_arguments(("split=test", "difficulty=3"))
    {'split': 'test', 'difficulty': '3'}
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"taskset argument {pair!r} is not key=value", hint="for example -a split=test")
        found[key] = value
    return found


def main() -> int:
    """The console script."""
    return run(cli)


if __name__ == "__main__":
    raise SystemExit(main())
