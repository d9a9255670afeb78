"""An experiment: a claim, the one recipe that puts it to the test, and what of its runs stands on the page.

An experiment file (`training/experiments/NAME.py`) holds one function, named like the file, that returns an
`Experiment`. All arms of a claim are stages of one recipe, so that a seed is one run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields

from evals.result import EvalResult
from evals.sample import Sample
from tools.errors import ConfigError, nearest
from tools.record import record
from training.inputs import measured_taskset
from training.recipe import BASE, Evaluate, Recipe, Stage, trains

NUMBERS = tuple(each.name for each in fields(EvalResult) if each.type in ("int", "float"))
"""What every evaluation counts, beside what its rubric does."""

PER_EPISODE: Mapping[str, Callable[[Sample], float]] = {
    "calls_per_task": lambda sample: sample.calls,
    "used_tools": lambda sample: sample.calls > 0,
    "truncated": lambda sample: sample.truncated,
    "unanswered": lambda sample: not sample.answered,
    "mean_turns": lambda sample: sample.turns,
    "mean_tokens": lambda sample: sample.tokens,
}
"""Those of them that are means over episodes, so that they have intervals and can be compared, as the rubric's can."""


@record
class Row:
    """A line of the table."""

    label: str
    stages: tuple[str, ...]
    """Evaluate stages of the recipe; of several, the mean is shown."""


@record
class Experiment:
    """What `training reproduce` runs and tells of."""

    title: str
    claim: str
    """What is claimed and by whom: the paper's arXiv number and section."""
    recipe: str
    """A recipe's name, or `path/file.py:function`."""
    settings: tuple[str, ...] = ()
    """`key=value`, as on the command line, for every seed. The command line's own win."""
    seeds: tuple[int, ...] = (0, 1, 2)
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = ()
    """Columns beside the accuracy: fields of `EvalResult` and names of the rubric; `chance%` is `chance` in percent."""
    differences: tuple[tuple[str, str] | tuple[str, str, str], ...] = ()
    """(label, label) of rows, the one that is claimed to be higher first, compared within each seed; with the name of
    a metric behind them by that instead. In place of the second, a metric of the first: ("read", "chance")."""
    curves: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Stage that trains -> names in its metrics.jsonl, shown over its steps."""
    limits: str = ""
    """What the numbers do not say."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        labels = [row.label for row in self.rows]
        if not labels:
            raise ConfigError(
                f"the experiment {self.title!r} has no rows", hint="rows=(Row(label=..., stages=(...,)),)"
            )
        for row in self.rows:
            if labels.count(row.label) > 1:
                raise ConfigError(f"two rows of the experiment are called {row.label!r}")
            if not row.stages or isinstance(row.stages, str):
                raise ConfigError(
                    f"the row {row.label!r} has stages={row.stages!r}", hint="a tuple of names: ('eval',)"
                )
        for one in self.differences:
            self._check_difference(one, labels)

    def _check_difference(self, one: Sequence[str], labels: Sequence[str]) -> None:
        if isinstance(one, str) or not 2 <= len(one) <= 3:
            raise ConfigError(f"differences has {one!r}", hint="(label, label) or (label, label, metric)")
        higher, lower, *metric = one
        if higher not in labels:
            raise ConfigError(f"differences has {higher!r}, which is no row", hint=nearest(higher, labels))
        comparable = [name for name in self.metric_names if name in PER_EPISODE or name not in NUMBERS]
        known = [*labels, *([] if metric else comparable)]
        if lower not in known or lower == higher:
            raise ConfigError(
                f"differences has {lower!r} beside {higher!r}, which is no other row and no metric of episodes",
                hint=nearest(lower, known),
            )
        if metric and metric[0] not in comparable:
            wrong = f"differences compares {metric[0]!r}, which is no metric of episodes"
            raise ConfigError(wrong, hint=nearest(metric[0], comparable))

    @property
    def metric_names(self) -> tuple[str, ...]:
        """`metrics` as they are called in files."""
        return tuple(name.removesuffix("%") for name in self.metrics)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise `ConfigError` for none, for a negative one, and for one given twice."""
    if not seeds:
        raise ConfigError("there are no seeds", hint="for example: --seeds 0,1,2")
    for seed in seeds:
        if seed < 0 or seeds.count(seed) > 1:
            wrong = "is negative" if seed < 0 else "is given twice"
            raise ConfigError(f"seed {seed} {wrong}", hint="seeds are different whole numbers from 0 on")


def check_fits(experiment: Experiment, recipe: Recipe) -> None:
    """Raise `ConfigError` where the experiment tells of a stage or a metric that runs of the recipe do not have."""
    measured = [stage.name for stage in recipe.stages if isinstance(stage, Evaluate)]
    for row in experiment.rows:
        for name in row.stages:
            if name not in measured:
                raise ConfigError(
                    f"row {row.label!r} tells of {name!r}, and recipe {recipe.name} has no such evaluation",
                    hint=nearest(name, measured),
                )
            known = {*NUMBERS, *measured_taskset(recipe, recipe.stage(name)).rubric.rewards}
            for metric in experiment.metric_names:
                if metric not in known:
                    raise ConfigError(f"{name} measures no {metric!r}", hint=nearest(metric, known))
    trained = [stage.name for stage in recipe.stages if trains(stage)]
    for name in experiment.curves:
        if name not in trained:
            raise ConfigError(
                f"curves tells of {name!r}, and recipe {recipe.name} trains no such stage", hint=nearest(name, trained)
            )


def behind(row: Row, recipe: Recipe) -> list[Stage]:
    """The stages that trained what a row measures, in the recipe's order: its models' ancestors up to the base.

    >>> from training.recipe import GRPO, SFT
    >>> stages = (SFT(data="gold"), GRPO(start="sft"), SFT(name="other", data="gold"), Evaluate(model="grpo"))
    >>> [stage.name for stage in behind(Row(label="rl", stages=("eval",)), Recipe(name="r", stages=stages))]
    ['sft', 'grpo']
    """
    found: set[str] = set()
    for name in row.stages:
        model = recipe.stage(name).model
        while model != BASE and model not in found:
            found.add(model)
            model = recipe.stage(model).start
    return [stage for stage in recipe.stages if stage.name in found]
