"""Pages for people: the run's report.html, and one page of episodes for each stage that played some."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from envs.find import find_taskset
from envs.log import blobs_beside, read_log
from envs.trajectory import Trajectory
from evals.report import PageBuilder, write_page
from training.collect import LOG
from training.files import MODEL
from training.overrides import to_json
from training.progress import duration
from training.recipe import GRPO, Collect, Evaluate, Recipe, Stage, title_of

EPISODES = "report.html"
SHOWN = 60
"""Episodes on a stage's page: half from the start, half from the end."""


def write_episode_pages(recipe: Recipe, out: Path) -> None:
    """A page of episodes for each collect and GRPO stage; evaluations write their own."""
    for stage in recipe.stages:
        log = out / stage.name / LOG
        if isinstance(stage, Collect | GRPO) and log.exists():
            count = sum(1 for _ in read_log(log))
            metric = find_taskset(recipe.taskset, recipe.arguments(stage)).rubric.headline
            builder = PageBuilder(metric, blobs_beside(log), _decoder(recipe, stage, out))
            episodes = [
                {**builder.episode(episode), "name": f"{number}: {episode.task.id}", "repeat": number}
                for number, episode in _first_and_last(log, count)
            ]
            write_page(
                out / stage.name / EPISODES,
                title=f"{recipe.name}: {stage.name}",
                headline=f"{count} episodes, in the order they finished",
                facts=[(key, json.dumps(value)) for key, value in to_json(recipe).items() if key != "stages"],
                metric=builder.metric,
                episodes=episodes,
                images=builder.images,
                note=f"{len(episodes)} of {count} episodes are on this page, the first and the last; all are in {LOG}.",
            )


def _first_and_last(log: Path, count: int) -> Iterator[tuple[int, Trajectory]]:
    """Numbered episodes of the log, from both ends; GRPO's advantages are joined to them."""
    worth = _advantages(log.parent)
    for number, episode in enumerate(read_log(log)):
        if number < SHOWN // 2 or number >= count - SHOWN // 2:
            if (found := worth.get((episode.info.get("step"), episode.task.id, episode.sample))) is not None:
                episode.info["advantage"] = found
            yield number, episode


def _advantages(folder: Path) -> dict[tuple[Any, str, int], Any]:
    """What GRPO's loss took each episode (step, task, sample) to be worth; empty for other stages."""
    path = folder / "advantages.jsonl"
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(line["step"], line["task"], line["sample"]): line["advantage"] for line in lines}


def _decoder(recipe: Recipe, stage: Collect | GRPO, out: Path) -> Callable[[Sequence[int]], list[str]] | None:
    """Token texts by the stage's tokenizer; None where no tokens were recorded."""
    if isinstance(stage, Collect) and stage.source == "gold":
        return None
    from transformers import AutoTokenizer

    from agent.models import tokenizer_folder
    from evals.decode import token_texts

    where = out / (stage.name if isinstance(stage, GRPO) else stage.source) / MODEL
    tokenizer: Any = AutoTokenizer.from_pretrained(where if where.exists() else tokenizer_folder(recipe.model))  # pyright: ignore
    return lambda ids: token_texts(tokenizer, ids)


def link_of(stage: Stage, out: Path) -> str | None:
    """Where a stage's episodes are shown, relative to the run folder."""
    where = Path(stage.name) / EPISODES
    return str(where) if isinstance(stage, Collect | GRPO | Evaluate) and (out / where).exists() else None


def page(
    recipe: Recipe,
    report: dict[str, Any],
    *,
    results: tuple[Sequence[str], Sequence[Sequence[str]]],
    stages: Sequence[tuple[Sequence[str], str | None]],
    curves: Sequence[Path],
    examples: str,
) -> str:
    """report.html: tables, examples (HTML), curves and settings in one file, with links to the stages' episodes."""
    heads, rows = results
    linked = [[*map(html.escape, cells), _link(where)] for cells, where in stages]
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items() if value)
    measured = f"{report['n']} held-out tasks, " if report["n"] else ""
    parts = [
        f"<h1>{html.escape(title_of(recipe))}</h1>",
        f"<p>seed {recipe.seed}, {measured}{duration(report['seconds'])} in all</p>",
        _table(heads, [[html.escape(cell) for cell in row] for row in rows]) if rows else "",
        "<h2>Stages</h2>",
        _table(("stage", "what it did", "time", "episodes"), linked),
        examples,
        *(_picture(path) for path in curves),
        "<h2>Settings</h2>",
        f"<pre>{html.escape(json.dumps(to_json(recipe), indent=2))}</pre>",
        f"<p>{html.escape(versions)}</p>",
    ]
    title = html.escape(recipe.name)
    return _FRAME.replace("{{title}}", title).replace("{{body}}", "\n".join(part for part in parts if part))


def _link(where: str | None) -> str:
    return f'<a href="{html.escape(where)}">read them</a>' if where else ""


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = html.escape(path.stem)
    return f'<h2>{name}</h2><img alt="curves of {name}" src="data:image/png;base64,{data}">'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are HTML already."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


_FRAME = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{title}}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
img { max-width: 100%; }
pre { background: #f6f6f6; padding: 1rem; overflow: auto; font-size: 13px; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: 0 1.5rem; }
.sides > div { border-left: 3px solid #ddd; padding-left: .8rem; min-width: 0; }
.sides h4, .sides p { margin: .3rem 0; } .sides pre { padding: .3rem .5rem; margin: .3rem 0; white-space: pre-wrap; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; } .shot { image-rendering: pixelated; display: block; }
small { font-weight: normal; color: #777; }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #ddd; } th, td { border-color: #444; } pre { background: #222; } a { color: #8bf; }
  img { background: #fff; }
}
</style>
{{body}}
</html>
"""
