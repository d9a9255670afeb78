"""`training`: run recipes, or one stage. `key=value` sets a recipe's arguments and fields."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli import run as run_command
from tools.errors import ConfigError

if TYPE_CHECKING:
    from training.recipe import Recipe

SETTINGS = click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
OUT = click.option("--out", type=click.Path(path_type=Path), help="Run folder; runs/NAME by default. Also out=DIR.")
FRESH = click.option("--fresh", is_flag=True, help="Forget what the run folder holds and start over.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Make a model better at using tools: collect episodes, SFT, multi-turn GRPO.

    A recipe says all that a run does. Run again after a kill or Ctrl-C, the same command continues.
    """


@cli.command("run")
@click.argument("recipe")
@SETTINGS
@OUT
@FRESH
@click.option("--resume", is_flag=True, help="Only go on: refuse where the run folder holds no run yet.")
def run_recipe(recipe: str, settings: Sequence[str], out: Path | None, fresh: bool, resume: bool) -> None:
    """Run RECIPE: a name from `training list`, path/file.py:function, or the folder of an earlier run.

    For example: training run quickstart seed=1 stages.grpo.lr=1e-4 --out runs/try
    """
    run_resolved(*resolved(recipe, settings), out=out, fresh=fresh, resume=resume)


def _one_stage(name: str, about: str, example: str) -> None:
    @cli.command(name, help=f"{about}\n\nFor example: {example}\n\nSettings: training show {name}", short_help=about)
    @SETTINGS
    @OUT
    @FRESH
    def command(settings: Sequence[str], out: Path | None, fresh: bool) -> None:  # pyright: ignore[reportUnusedFunction]
        run_resolved(*resolved(name, settings), out=out, fresh=fresh)


_one_stage(
    "collect",
    "Roll out episodes and keep the good ones.",
    "training collect taskset=arithmetic taskset_args.difficulty=2 n=100 out=runs/data",
)
_one_stage(
    "sft",
    "Fine-tune on recorded episodes.",
    "training sft data=runs/data/collect/kept.jsonl steps=20 out=runs/sft",
)
_one_stage(
    "grpo",
    "Multi-turn GRPO on a taskset.",
    "training grpo taskset=file.py:taskset model=runs/sft/sft/model steps=20",
)


@cli.command("list")
def list_recipes() -> None:
    """The recipes at hand."""
    from training.find import known_recipes

    _list(known_recipes())


def _list(known: Mapping[str, str]) -> None:
    for name, about in known.items():
        click.echo(f"{name:<{max(map(len, known))}}  {about}")


@cli.command("show")
@click.argument("recipe")
@SETTINGS
def show(recipe: str, settings: Sequence[str]) -> None:
    """Print RECIPE as it would run, every field resolved; on stderr, what the settings changed.

    RECIPE is also the folder of a run: then the changes are those from the recipe as it is by default.
    """
    from training.overrides import differences, to_json

    wanted = to_json(resolved(recipe, settings)[0])
    click.echo(json.dumps(wanted, indent=2))
    default = default_of(wanted["name"] if (Path(recipe) / "recipe.json").exists() else recipe)
    changed = None if default is None else differences(to_json(default), wanted)
    if changed is None:
        click.echo("it has no defaults to compare with", err=True)
    else:
        click.echo("\n".join(changed) or "nothing differs from the defaults", err=True)


@cli.command("reproduce")
@click.argument("name", required=False)
@SETTINGS
@click.option("--seeds", help="Which, as 0,1,2; those of the experiment by default.")
@click.option("--jobs", type=int, help="Seeds that run at once; as many as there are cores, and memory for.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the seeds' runs; runs/reproduce/NAME by default."
)
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), help="Another place for the page.")
@click.option("--only-page", is_flag=True, help="Run nothing: write the page of the seeds that are done.")
@FRESH
def reproduce_claim(
    name: str | None,
    settings: Sequence[str],
    seeds: str | None,
    jobs: int | None,
    out: Path | None,
    page: Path | None,
    only_page: bool,
    fresh: bool,
) -> None:
    """Put the claim NAME to the test: its recipe for several seeds, and a page with intervals. Without NAME, list them.

    NAME is also path/file.py:function. Stopped or killed, the same command continues.
    For example: training reproduce tool_or_not --seeds 0,1,2 --page docs/claims/tool_or_not.md
    """
    if name is None:
        from training.find import known_experiments

        return _list(known_experiments())
    if only_page and fresh:
        raise ConfigError("--only-page tells of the runs there are and --fresh forgets them", hint="give one")
    from training.reproduce import reproduce, seeds_of

    try:
        target = reproduce(
            name,
            settings,
            seeds=None if seeds is None else seeds_of(seeds),
            jobs=jobs,
            out=out,
            page=page,
            run=not only_page,
            fresh=fresh,
        )
    except KeyboardInterrupt:
        click.echo("\nstopped; the same command continues", err=True)
        raise
    click.echo(target.read_text(encoding="utf-8"))
    click.echo(f"Written to {target}{f' and {page}' if page else ''}")


@cli.command("plot")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--metric", "metrics", multiple=True, help="Draw this one; again for more. By default the usual ones.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the pictures; RUN/plots by default.")
def plot_runs(runs: Sequence[Path], metrics: Sequence[str], out: Path | None) -> None:
    """Draw the metrics of RUN, finished or not; of several runs, on the same axes.

    For example: training plot runs/a runs/b --metric reward
    """
    from training.plot import plot

    for path in plot(runs, metrics, out):
        click.echo(path)


@cli.command("accelerate")
@click.argument("name", required=False)
def accelerate_config(name: str | None) -> None:
    """Print where the accelerate config NAME is; without a name, list those at hand.

    For example: accelerate launch --config_file "$(training accelerate cpu-2)" -m training run quickstart
    """
    from training.launch import config_path, known_configs

    if name is not None:
        click.echo(config_path(name))
        return
    for known, about in known_configs().items():
        click.echo(f"{known:<10}{about}")


@cli.command("export")
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target", type=click.Path(path_type=Path))
def export_model(source: Path, target: Path) -> None:
    """Write the model of SOURCE into the folder TARGET, adapters merged, ready for transformers or a vLLM server.

    SOURCE is a stage of a run (its model, or else its last checkpoint), a checkpoint, or a folder of LoRA adapters.
    For example: training export runs/mine/grpo models/mine
    """
    from training.export import export

    click.echo(export(source, target))


def default_of(name: str) -> Recipe | None:
    """The recipe of that name without any setting; None when it has none, or cannot do without."""
    from training.find import find_recipe
    from training.overrides import build

    try:
        return build(find_recipe(name), {})
    except ConfigError:
        return None


def resolved(name: str, settings: Sequence[str]) -> tuple[Recipe, Path | None]:
    """The recipe with its overrides, and `out=` or the folder that a run already has."""
    from training.files import read_json
    from training.find import find_recipe
    from training.overrides import build, from_json, split

    pairs = split(settings)
    out = Path(pairs.pop("out")) if "out" in pairs else None
    stored = read_json(Path(name) / "recipe.json")
    if stored is None:
        return build(find_recipe(name), pairs), out
    if pairs or out:
        raise ConfigError(f"{name} is a run, which continues with the settings it has", hint="drop the key=value")
    return from_json(stored), Path(name)


def run_resolved(recipe: Recipe, folder: Path | None, *, out: Path | None, fresh: bool, resume: bool = False) -> None:
    """Run it, say how to continue when interrupted, and print what came of it."""
    from training.run import run

    if out is not None and folder is not None and out != folder:
        raise ConfigError(f"two run folders are given: {folder} and {out}", hint="give one")
    chosen = out or folder or Path("runs") / recipe.name
    if resume and fresh:
        raise ConfigError("--resume goes on with a run and --fresh forgets it", hint="give one")
    if resume and not (chosen / "recipe.json").exists():
        raise ConfigError(f"{chosen} holds no run to go on with", hint="drop --resume, or give its folder with --out")
    try:
        run(recipe, chosen, fresh=fresh)
    except KeyboardInterrupt:
        click.echo(f"\nstopped; the same command continues, and so does: training run {chosen}", err=True)
        raise
    from training.launch import rank
    from training.report import closing_words

    if rank() == 0:
        click.echo(closing_words(recipe, chosen))


def main() -> int:
    """The console script."""
    return run_command(cli, sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
