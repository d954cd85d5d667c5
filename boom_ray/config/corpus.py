"""Datasets and how they become a corpus."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from boom_ray.config.loss import LossConfig
from boom_ray.config.section import KeyedError, Section, runtime

TaskType = Literal["retrieval", "reranking", "sts", "classification", "clustering", "pair", "bitext"]
LABEL_TASKS: frozenset[str] = frozenset({"classification", "clustering"})


class ColumnsConfig(Section):
    """Column names of a source, where they differ from the known ones; a null role is found by its usual names."""

    query: str | None = Field(None, description="query, anchor, sentence1 or question")
    positive: str | None = Field(None, description="positive text or list of them (pos, positive, sentence2, answer)")
    negative: tuple[str, ...] = Field((), description="columns with a hard negative or a list of them")
    score: str | None = Field(None, description="graded similarity of a pair, in units of score_range")
    text: str | None = Field(None, description="the text of a labelled example")
    label: str | None = Field(None, description="the label of a labelled example, integer or text")
    label_text: str | None = Field(None, description="the label's name, if label is a number")
    instruction: str | None = Field(None, description="per-row instruction that replaces the dataset's (prompt)")


class DatasetConfig(Section):
    """One named source of examples with one task type, instruction and negatives policy."""

    name: str = Field(description="unique name, used in reports and MLflow", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    source: str = Field(
        description="file, folder, glob or URL; embedded:NAME for the built-in text; a hub name with format huggingface"
    )
    format: Literal["auto", "jsonl", "parquet", "csv", "beir", "huggingface"] = Field(
        "auto", description="form of the source; auto goes by the file name, a folder with corpus.jsonl is beir"
    )
    subset: str | None = Field(None, description="configuration name of a Hugging Face dataset")
    split: str = Field("train", description="split of a Hugging Face dataset, or the qrels file of a BEIR folder")
    columns: ColumnsConfig = Field(ColumnsConfig(), description="column names")
    task_type: TaskType = Field(description="what the examples are; decides how they become contrastive ones")
    instruction: str = Field("", description="what to do, put into the model's query_template as {task}")
    passage_instruction: str = Field(
        "", description="what passages are, put into the model's passage_template as {task}; not of symmetric datasets"
    )
    symmetric: bool | None = Field(
        None, description="passages get the query template too; null: true for sts, pair, clustering and bitext"
    )
    in_batch: bool | None = Field(
        None, description="other examples of the step are negatives; null: false for classification and clustering"
    )
    label_positive: Literal["text", "label"] = Field(
        "text", description="positive of a labelled example: another text of its label, or the label's name"
    )
    label_negatives: int = Field(7, ge=1, description="negatives drawn from other labels per labelled example; texts")
    score_range: tuple[float, float] = Field((0.0, 1.0), description="lowest and highest score in the source")
    positive_from: float = Field(
        0.75,
        ge=0,
        le=1,
        description="a scored pair is a positive from this share of score_range on; a graded loss takes all pairs",
    )
    loss: LossConfig = Field(LossConfig(), description="what its steps are trained with")

    @property
    def is_symmetric(self) -> bool:
        """Whether passages are encoded as queries are."""
        if self.symmetric is None:
            return self.task_type in {"sts", "pair", "clustering", "bitext"}
        return self.symmetric

    @property
    def uses_in_batch(self) -> bool:
        """Whether the other examples of a step serve as negatives (PAPER.md section 4)."""
        return self.task_type not in LABEL_TASKS if self.in_batch is None else self.in_batch

    @model_validator(mode="after")
    def _own_negatives_only(self) -> Self:
        other = [direction for direction in self.loss.directions if direction != "query_to_passage"]
        if other and not self.uses_in_batch:
            raise KeyedError(
                "loss.directions",
                f"{' and '.join(other)} need the other examples of the step; set in_batch=true or leave them out",
            )
        return self

    @model_validator(mode="after")
    def _score_range(self) -> Self:
        if self.score_range[0] >= self.score_range[1]:
            raise ValueError("score_range must be [lowest, highest] with lowest < highest")
        return self


class EmbeddedConfig(Section):
    """The built-in text: docstrings and source of installed Python packages (DESIGN.md section 7)."""

    seed: int = Field(0, description="seed of the keyed hashes that choose functions and test sets")
    in_domain: tuple[str, ...] = Field(
        ("stdlib", "numpy", "pandas", "torch", "sklearn", "scipy"),
        description="packages whose functions are trained on; held-out functions of them are the in-domain tests",
    )
    out_of_domain: tuple[str, ...] = Field(
        ("ray", "mlflow", "transformers", "networkx", "sqlalchemy", "sympy", "matplotlib"),
        description="packages never trained on, for the out-of-domain tests",
    )
    train_examples: int = Field(4000, ge=64, description="most training examples per dataset; examples")
    negatives: int = Field(4, ge=0, description="most hard negatives per retrieval example, of the same module; texts")
    test_queries: int = Field(
        200, ge=10, description="queries per retrieval test set; tests of labels and pairs have twice as many texts"
    )
    test_corpus: int = Field(400, ge=20, description="passages per retrieval test set; texts")
    max_characters: int = Field(500, ge=80, description="longest text; characters, cut at a word")
    source_mb: float = Field(
        6.0, gt=0, description="most source read per package, files chosen by keyed hash; 10^6 bytes"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        both = sorted(set(self.in_domain) & set(self.out_of_domain))
        if both:
            raise ValueError(f"a package is either in_domain or out_of_domain; in both: {', '.join(both)}")
        return self


class NearDuplicatesConfig(Section):
    """When two texts count as nearly the same, see `boom_ray.near_duplicates`."""

    threshold: float = Field(
        0.8,
        ge=0.5,
        le=1,
        description="least share of common runs of five characters, case and punctuation aside; 1 = the same runs",
    )
    min_characters: int = Field(
        20, ge=5, description="shorter texts, punctuation aside, are compared for equality only; characters"
    )


class CorpusConfig(Section):
    """All datasets of a run and how they are cleaned and tokenised."""

    datasets: tuple[DatasetConfig, ...] = Field(description="the datasets", min_length=1)
    max_query_tokens: int = Field(512, ge=4, description="longest query, instruction included; tokens")
    max_passage_tokens: int = Field(512, ge=4, description="longest positive or negative; tokens")
    max_negatives: int = Field(32, ge=0, description="most negatives kept per example; texts")
    on_bad_row: Literal["error", "reject"] = Field(
        "error", description="a bad row stops the ingest (error) or goes to the rejects file (reject)"
    )
    decontaminate: bool = Field(
        True, description="drop examples whose query or positive is a text of an evaluation set"
    )
    near_duplicates: NearDuplicatesConfig | None = Field(
        None, description="drop examples whose query or positive is nearly such a text, too; {} = the defaults"
    )
    embedded: EmbeddedConfig = Field(EmbeddedConfig(), description="the built-in text, if a source is embedded:NAME")
    fragment_mb: int = runtime(32, "bytes read by one Ray task at a time; MiB", ge=1)

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [dataset.name for dataset in self.datasets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"dataset names must be unique; used twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _near_needs_exact(self) -> Self:
        if self.near_duplicates is not None and not self.decontaminate:
            raise KeyedError(
                "near_duplicates", "decontaminate=false keeps evaluation texts; set it to true, or leave out"
            )
        return self
