"""What a run starts from: the embedded text, the base model and its tokenizer, with every name made a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from boom_ray.config import (
    CorpusConfig,
    EmbeddedConfig,
    EvaluateJobConfig,
    EvaluationConfig,
    MergeJobConfig,
    RunConfig,
)
from boom_ray.corpus import hub
from boom_ray.corpus.embedded import embedded_artifact
from boom_ray.corpus.sources import locate
from boom_ray.errors import ConfigError, EvaluationError
from boom_ray.evaluation.catalog import expand
from boom_ray.evaluation.folders import task_files
from boom_ray.events import Report
from boom_ray.model.folder import max_sequence_length, prompts_digest, resolve_base, weights_fingerprint
from boom_ray.model.tokenizer import load_tokenizer, tokenizer_json
from boom_ray.store import Artifact, Store
from boom_ray.training.base import BaseJob

PREFIX = "embedded:"
C = TypeVar("C", bound=RunConfig | MergeJobConfig | EvaluateJobConfig)


@dataclass(frozen=True)
class BaseSource:
    """The configured base model.

    Attributes:
        folder: where it is on this machine.
        fingerprint: hash of its weights.
        prompts_digest: hash of its tokenizer, pooling and prompts.
        tokenizer_json: the tokenizer for the ``tokenizers`` library.
        max_tokens: longest text that models trained from it read; tokens.
        longest: longest text of the corpus; tokens.
    """

    folder: Path
    fingerprint: str
    prompts_digest: str
    tokenizer_json: str
    max_tokens: int
    longest: int

    def job(self, config: RunConfig) -> BaseJob:
        """What makes the artifact that members start from."""
        digests = (self.fingerprint, self.prompts_digest)
        return BaseJob(config.model, *digests, prompts(config), self.max_tokens, config.seed, self.longest)


def load_base(config: RunConfig) -> BaseSource:
    """Find, check and hash the base model."""
    folder = resolve_base(config.model)
    longest = max(config.corpus.max_query_tokens, config.corpus.max_passage_tokens)
    return BaseSource(
        folder,
        weights_fingerprint(folder),
        prompts_digest(folder),
        tokenizer_json(load_tokenizer(folder, config.model)),
        max_sequence_length(folder) or longest,
        longest,
    )


def check_sources(corpus: CorpusConfig | None, evaluation: EvaluationConfig) -> None:
    """Check that the files of datasets and tasks are there, before anything is started; their content comes later.

    Names on the hub, mteb's own tasks and the embedded text are not looked for.

    Raises:
        DataError: a dataset has no files.
        EvaluationError: a task's folder lacks one.
    """
    for dataset in corpus.datasets if corpus else ():
        on_hub = dataset.format == "huggingface" and not hub.is_local(dataset.source)
        if not dataset.source.startswith(PREFIX) and not on_hub:
            locate(dataset)
    for task in evaluation.all_tasks:
        files = task_files(task) if task.path and not task.path.startswith(PREFIX) else []
        missing = next((file for file in files if not file.exists()), None)
        if missing is not None:
            raise EvaluationError(f"Task {task.name}: {missing} does not exist.")


def with_embedded(store: Store, config: C, report: Report) -> C:
    """The configuration with benchmarks as tasks and ``embedded:NAME`` as paths; builds the embedded text if used.

    Raises:
        ConfigError: there is no embedded dataset or task of that name.
        EvaluationError: mteb has no such benchmark.
    """
    config = cast(C, config.model_copy(update={"evaluation": expand(config.evaluation)}))
    corpus: CorpusConfig | None = getattr(config, "corpus", None)
    sources = [dataset.source for dataset in corpus.datasets] if corpus else []
    paths = [task.path or "" for task in config.evaluation.all_tasks]
    if not any(name.startswith(PREFIX) for name in [*sources, *paths]):
        return config
    artifact = embedded_artifact(store, corpus.embedded if corpus else EmbeddedConfig(), report)
    update: dict[str, Any] = {}
    if corpus:
        placed = tuple(
            dataset.model_copy(update={"source": _path(artifact, dataset.source, "train", ".jsonl")})
            for dataset in corpus.datasets
        )
        update["corpus"] = corpus.model_copy(update={"datasets": placed})
    groups: dict[str, Any] = {}
    for group in ("in_domain", "out_of_domain", "selection"):
        groups[group] = tuple(
            task.model_copy(update={"path": _path(artifact, task.path, "tests", "")} if task.path else {})
            for task in getattr(config.evaluation, group)
        )
    update["evaluation"] = config.evaluation.model_copy(update=groups)
    return cast(C, config.model_copy(update=update))


def _path(artifact: Artifact, name: str, folder: str, suffix: str) -> str:
    if not name.startswith(PREFIX):
        return name
    found = artifact.local() / folder / f"{name.removeprefix(PREFIX)}{suffix}"
    if not found.exists():
        known = sorted(path.name.removesuffix(suffix) for path in (artifact.local() / folder).iterdir())
        raise ConfigError(f"There is no {name}; embedded {folder}: {', '.join(known)}.")
    return str(found)


def prompts(config: RunConfig) -> dict[str, str]:
    """The prompts that trained models store, by name.

    ``query`` and ``document`` where all datasets agree; where they do not, one named as each dataset, and one named
    NAME-document for its passages, which is how mteb looks prompts of tasks up.
    """
    model = config.model
    queries = {one.name: model.query_prompt(one.instruction) for one in config.corpus.datasets}
    passages = {
        f"{one.name}-document": queries[one.name] if one.is_symmetric else model.passage_prompt(one.passage_instruction)
        for one in config.corpus.datasets
    }
    asymmetric = {passages[f"{one.name}-document"] for one in config.corpus.datasets if not one.is_symmetric}
    found = {"query": next(iter(queries.values()))} if len(set(queries.values())) == 1 else _said(queries)
    found["document"] = asymmetric.pop() if len(asymmetric) == 1 else model.passage_prompt()
    found |= {name: prompt for name, prompt in passages.items() if prompt != found["document"]}
    return found if any(found.values()) else {}


def _said(prompts: dict[str, str]) -> dict[str, str]:
    return {name: prompt for name, prompt in prompts.items() if prompt}
