"""What `jobs/evaluate.py` leaves: tables, tests and pictures in MLflow, mteb's files, and the last words."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from boom_ray.config import EvaluateJobConfig, EvaluationConfig, to_yaml
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.compare import Comparison, compare, ranks, rows, summary, to_json
from boom_ray.evaluation.comparison import Runs
from boom_ray.evaluation.domains import TaskDomain, domains_table
from boom_ray.evaluation.report import Row, markdown, table
from boom_ray.evaluation.results import Scores, export, prompt_warnings, used_prompts
from boom_ray.evaluation.scores import GROUPS, Evaluation, ModelRef
from boom_ray.flows.evaluate.card import with_scores
from boom_ray.flows.pictures.comparison import cost_quality, gain_bars, pareto, radar
from boom_ray.flows.summary import by_task, say_table
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import digest
from boom_ray.model.folder import stored_prompts
from boom_ray.store import Artifact

NOT_IN_RESULT = ("store", "tracking", "cluster", "export")


@dataclass(frozen=True)
class Published:
    """A published model's scores, read from mteb's result files.

    Attributes:
        name: of the model.
        scores: task to score.
        missing: tasks that it has no result of.
    """

    name: str
    scores: Scores
    missing: Sequence[str]


class EvaluateRecorder:
    """The MLflow run of an evaluation; the same configuration and models continue the same run."""

    def __init__(self, space: Workspace, config: EvaluateJobConfig, models: Sequence[ModelRef], started: float) -> None:
        """Open the run; ``started`` is when the job began, by ``time.monotonic``."""
        self.space, self.config, self.models, self.started = space, config, models, started
        decides = {name: value for name, value in config.identity().items() if name not in NOT_IN_RESULT}
        self.key = digest({"config": decides, "models": [[one.name, one.fingerprint] for one in models]})
        self.run = space.tracker.run(self.key, config.name, tags={"stage": "evaluation", "store": space.store.root})
        self.run.params(config.model_dump(mode="json"))
        self.run.text("config.yaml", to_yaml(config))
        self._impossible: list[str] = []

    def finish(
        self,
        tasks: EvaluationConfig,
        evaluation: Evaluation,
        scores: Mapping[str, Scores],
        published: Sequence[Published],
    ) -> Sequence[str]:
        """Log and print everything; what cannot be compared loses nothing else.

        Args:
            tasks: what was evaluated.
            evaluation: scores and failures.
            scores: of evaluated and published models, by model and task.
            published: those read from files.

        Returns:
            What cannot be ranked or compared, with the reasons; they were said already.
        """
        self._scores(evaluation, scores)
        places = self._files(evaluation, scores)  # before all that looks at several models at once
        self._prompts(tasks, evaluation)
        for one in published:
            if one.missing:
                self._say(f"{one.name} has no results of: {', '.join(one.missing)}.")
        runs = self._runs(scores)
        if len(runs) > 1:
            self._pictures(runs)
        comparisons = list(self._compare(runs)) if self.config.compare else []
        self.run.metrics({"failures": float(len(evaluation.failures))})
        self.run.end("FAILED" if evaluation.failures or self._impossible else "FINISHED")
        self.space.tracker.flush()
        self._last_words(comparisons, places)
        return self._impossible

    def domains(self, found: Sequence[TaskDomain]) -> None:
        """What a corpus holds of every task's source."""
        if found:
            self.run.table("domains.csv", domains_table(found))

    def contamination(self, found: Artifact) -> None:
        """Which texts of the tasks a corpus holds."""
        from boom_ray.evaluation.contamination import contamination_pairs, contamination_table

        rows_found, pairs = contamination_table(found), contamination_pairs(found)
        self.run.table("contamination.csv", rows_found)
        self.run.text("contamination_pairs.json", json.dumps(pairs, indent=1, ensure_ascii=False))
        say_table(self.space, rows_found, "Texts of the tasks in the training data")
        self._say("Pairs to look at are in MLflow, contamination_pairs.json.")

    def _say(self, text: str) -> None:
        self.space.progress.say(text)

    def _scores(self, evaluation: Evaluation, scores: Mapping[str, Scores]) -> None:
        """Table of all models, and a child run per model with its scores as metrics."""
        if not scores:
            return
        tasks = list(dict.fromkeys(task for own in scores.values() for task in own))
        full: list[Row] = [
            {"model": name, **{task: own[task].value if task in own else None for task in tasks}}
            for name, own in scores.items()
        ]
        self.run.table("scores.csv", [dict(row) for row in full])
        overview = self._ranked(scores)
        self.run.text("scores.md", f"{markdown(full)}\n\n{markdown(table(evaluation.scores))}\n")
        if overview:
            self.run.table("means.csv", [dict(row) for row in overview])
            say_table(self.space, [_percent(row) for row in overview], "Means over tasks (100 = perfect), best first")
        say_table(self.space, by_task(full), "Scores by task")
        seconds = {name: sum(one.seconds for one in evaluation.scores if one.model == name) for name in scores}
        by_name: dict[str, Row] = {name: {} for name in scores} | {str(row["model"]): row for row in overview}
        for name, row in by_name.items():
            child = self.space.tracker.run(f"{self.key}/{name}", name, self.run, {"stage": "scores", "model": name})
            values = {f"scores/{task}": one.value for task, one in scores[name].items()}
            means = {f"mean/{key}": value for key, value in row.items() if isinstance(value, float)}
            child.metrics(values | means | {"evaluation_seconds": seconds[name]})
            child.end()

    def _prompts(self, tasks: EvaluationConfig, evaluation: Evaluation) -> None:
        """The strings that stood before texts, and where they are not those of the training."""
        configured = {task.name: task for task in tasks.tasks}
        stored = {model.name: stored_prompts(self.space.store.resolve(model.path)) for model in self.models}
        lines, warnings = [], []
        for score in evaluation.scores:
            used = used_prompts(self.space.store, score)
            lines += [
                {"model": score.model, "task": score.task, "texts": role, "prompt": text} for role, text in used.items()
            ]
            warnings += prompt_warnings(score.model, configured[score.task], used, stored[score.model])
        if lines:
            self.run.table("prompts.csv", lines)
        if warnings:
            self.run.text("prompt_warnings.txt", "\n".join(warnings))
            more = f"\n… and {len(warnings) - 5} more in MLflow, prompt_warnings.txt." if len(warnings) > 5 else ""
            self._say("Prompts that differ from training:\n" + "\n".join(warnings[:5]) + more)

    def _runs(self, scores: Mapping[str, Scores]) -> dict[str, Runs]:
        """Models by name; those of one run name together, as runs of one model."""
        names = {model.name: entry.run for model, entry in zip(self.models, self.config.models, strict=True)}
        found: dict[str, list[Scores]] = {}
        for name, own in scores.items():
            found.setdefault(names.get(name) or name, []).append(own)
        return {name: own[0] if len(own) == 1 else own for name, own in found.items()}

    def _pictures(self, runs: Mapping[str, Runs]) -> None:
        overview = {str(row["model"]): row for row in self._ranked(runs)}
        if not overview:
            return
        fixed = {"model", "borda_rank", "mean_rank", "mean_task", "mean_type", *GROUPS}
        types = {
            name: {key: value for key, value in row.items() if key not in fixed and isinstance(value, float)}
            for name, row in overview.items()
        }
        self.run.figure("types.png", radar(types))
        pairs = {name: (row.get(GROUPS[0]), row.get(GROUPS[1])) for name, row in overview.items()}
        points = {
            name: (inside, outside)
            for name, (inside, outside) in pairs.items()
            if isinstance(inside, float) and isinstance(outside, float)
        }
        if len(points) > 1:
            self.run.figure("in_and_out_of_domain.png", pareto(points))
        costs = {
            entry.run or model.name: entry.cost for model, entry in zip(self.models, self.config.models, strict=True)
        }
        priced = {
            name: (cost, quality)
            for name, row in overview.items()
            if (cost := costs.get(name)) is not None and isinstance(quality := row["mean_task"], float)
        }
        if len(priced) > 1:
            self.run.figure("cost_and_quality.png", cost_quality(priced, "cost"))

    def _ranked(self, models: Mapping[str, Runs]) -> list[Row]:
        """Means and ranks, see `ranks`; none if the models cannot be ranked, which is said."""
        try:
            return ranks(models)
        except EvaluationError as error:
            self._cannot(f"Models cannot be ranked: {error}")
            return []

    def _compare(self, runs: Mapping[str, Runs]) -> Iterator[Comparison]:
        """Every model against the baseline: numbers, words and a picture each."""
        order = [entry.run or model.name for model, entry in zip(self.models, self.config.models, strict=True)]
        first = self.config.baseline or next(iter([*order, *runs]))
        if first not in runs:
            self._cannot(f"Nothing is compared: the baseline {first} has no scores.")
            return
        for name, own in runs.items():
            if name == first:
                continue
            try:
                found = compare(runs[first], own, (first, name), self.config.evaluation.seed)
            except EvaluationError as error:
                self._cannot(f"{name} cannot be compared with {first}: {error}")
                continue
            self.run.table(f"compare/{name}.csv", [dict(row) for row in rows(found)])
            self.run.text(f"compare/{name}.json", json.dumps(to_json(found), indent=1))
            self.run.text(f"compare/{name}.md", summary(found))
            self.run.figure(f"compare/{name}.png", gain_bars(found))
            yield found

    def _cannot(self, reason: str) -> None:
        if reason not in self._impossible:
            self._impossible.append(reason)
            self._say(reason)

    def _files(self, evaluation: Evaluation, scores: Mapping[str, Scores]) -> list[str]:
        """Mteb's result files and the card, where they are wanted; what to say of them."""
        said = []
        if self.config.export is not None:
            target = Path(self.config.export).expanduser().absolute()
            folders = export(self.space.store, self.models, evaluation.scores, target)
            said.append(f"mteb's result files: {target}/MODEL/REVISION/")
        if self.config.card_of is not None:
            model = next(one for one in self.models if one.name == self.config.card_of)
            card = with_scores(self.space.store.resolve(model.path), model, scores.get(model.name, {}))
            self.run.text("model_card.md", card)
            said.append(f"Card of {model.name} with its scores: in MLflow, model_card.md")
            if self.config.export is not None:
                place = folders[self.models.index(model)] / "README.md"
                place.write_text(card, encoding="utf-8")
                said[-1] += f", and {place}"
        return said

    def _last_words(self, comparisons: Sequence[Comparison], places: Sequence[str]) -> None:
        for found in comparisons:
            self._say(f"\n{found.names[1]} against {found.names[0]}:\n{summary(found)}")
        lines = [
            *places,
            f"Tables, tests and pictures in MLflow: {self.space.tracker.how_to_open()}",
            f"All scores: {self.space.store.root}; the same command again computes only what is missing.",
            f"Took {time.monotonic() - self.started:.0f} s.",
        ]
        self._say("\n" + "\n".join(lines))


def check_compared(impossible: Sequence[str]) -> None:
    """Raise what cannot be ranked or compared.

    Args:
        impossible: what `EvaluateRecorder.finish` returned.

    Raises:
        EvaluationError: there is something.
    """
    if impossible:
        raise EvaluationError("\n  ".join(["Not everything can be compared; all else is done:", *impossible]))


def _percent(row: Row) -> dict[str, str | float]:
    """Means in percent; ranks as they are."""
    found: dict[str, str | float] = {}
    for key, value in row.items():
        if isinstance(value, float) and not key.endswith("_rank"):
            found[key.replace("_", " ")] = round(100 * value, 2)
        elif value is not None:
            found[key.replace("_", " ")] = value if isinstance(value, str) else round(value, 2)
    return found
