from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation import proxies
from boom_ray.evaluation.benchmarks import check_tasks, score_inputs, score_spec, task_sizes
from boom_ray.evaluation.evaluator import Evaluator
from boom_ray.evaluation.folders import FolderData, LabelledData, PairData, RankingData, RetrievalData, read_folder
from boom_ray.evaluation.local_tasks import load_task
from boom_ray.evaluation.proxies import CANDIDATES, load_data, proxy_of, subsample
from boom_ray.evaluation.scores import ModelRef
from boom_ray.hashing import file_digest
from boom_ray.store import Store
from tests.evaluation.task_folders import TYPES, sentences, write_jsonl

NOUNS = ("cat", "dog", "bird", "fish", "tree", "river", "bank", "card", "money", "array", "index", "method")
few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 5)
draws = st.integers(0, 1 << 32).map(random.Random)
sizes = st.tuples(st.integers(2, 40), st.integers(0, 40)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def task(kind: str) -> TaskConfig:
    return TaskConfig(name="mine", path="/nowhere", type=kind)


def text(draw: random.Random) -> str:
    return " ".join(draw.choices(NOUNS, k=4))


def make(kind: str, draw: random.Random, negatives: int = 70) -> FolderData:
    """Data of a form with repeated texts, rare labels and queries with several passages."""
    rows = draw.randint(30, 60)
    if kind == "retrieval":
        corpus = {str(n): ("", text(draw)) for n in range(draw.randint(40, 400))}
        queries = {str(n): text(draw) for n in range(rows)}
        judged = {key: dict.fromkeys(draw.sample(sorted(corpus), draw.randint(1, 4)), 0) for key in queries}
        return RetrievalData(corpus, queries, {key: one | {next(iter(one)): 1} for key, one in judged.items()})
    texts = [text(draw) for _ in range(rows)]
    if kind == "reranking":
        passages = [[text(draw) for _ in range(draw.randint(1, 3))] for _ in texts]
        return RankingData(texts, passages, [[text(draw) for _ in range(draw.choice([3, negatives]))] for _ in texts])
    if kind in ("sts", "pair", "bitext"):
        scores = {"sts": [0.0, 1.5, 1.5, 2.0, 4.0, 5.0], "pair": [0.0, 1.0], "bitext": [1.0]}[kind]
        return PairData(texts, [text(draw) for _ in texts], [0.0, 1.0, *(draw.choice(scores) for _ in texts[2:])])
    labels = [0, 0, 1, 1, *(draw.choice([0, 0, 0, 1, 1, 2, 3, 4 + n]) for n in range(rows - 4))]
    return LabelledData(texts, labels, ["x"], [0])


def shuffled(data: FolderData, draw: random.Random) -> FolderData:
    if isinstance(data, RetrievalData):
        parts = [list(part.items()) for part in (data.corpus, data.queries, data.relevant)]
        for part in parts:
            draw.shuffle(part)
        return RetrievalData(*map(dict, parts))  # type: ignore[arg-type]
    if isinstance(data, LabelledData):
        rows = list(zip(data.texts, data.labels, strict=True))
        draw.shuffle(rows)
        return LabelledData(*map(list, zip(*rows, strict=True)), data.train_texts, data.train_labels)  # type: ignore[arg-type]
    others = list(zip(*vars(data).values(), strict=True))
    draw.shuffle(others)
    return type(data)(*map(list, zip(*others, strict=True)))  # type: ignore[arg-type]


def items(data: FolderData) -> Counter[Any]:
    """What a proxy holds, with no regard to order."""
    if isinstance(data, RetrievalData):
        return Counter([*data.corpus.items(), *data.queries.items(), *((key, repr(v)) for key, v in judged(data))])
    if isinstance(data, RankingData):
        return Counter(
            zip(data.queries, map(repr, data.positives), map(repr, map(sorted, data.negatives)), strict=True)
        )
    if isinstance(data, PairData):
        return Counter(zip(data.first, data.second, data.scores, strict=True))
    return Counter(zip(data.texts, data.labels, strict=True))


def judged(data: RetrievalData) -> list[tuple[str, list[tuple[str, int]]]]:
    return [(query, sorted(found.items())) for query, found in data.relevant.items()]


def tried(kind: str, data: FolderData, size: int, seed: int) -> FolderData | None:
    try:
        return subsample(task(kind), data, size, seed)
    except EvaluationError:
        return None


@pytest.mark.parametrize("kind", TYPES)
@few
@given(draw=draws, seed=seeds, sizes=sizes)
def test_a_smaller_proxy_lies_in_a_larger_one(
    kind: str, draw: random.Random, seed: int, sizes: tuple[int, int]
) -> None:
    data = make(kind, draw)
    small, large = (tried(kind, data, size, seed) for size in sizes)
    if small is None:
        return
    assert large is not None, "a larger proxy can be scored when a smaller one can"
    assert items(small) <= items(large)
    if kind != "reranking":  # whose queries may have lost some of their negatives
        assert items(large) <= items(data)


@pytest.mark.parametrize("kind", TYPES)
@few
@given(draw=draws, seed=seeds, size=st.integers(2, 40))
def test_the_order_of_the_rows_does_not_matter(kind: str, draw: random.Random, seed: int, size: int) -> None:
    data = make(kind, draw)
    first, second = (tried(kind, one, size, seed) for one in (data, shuffled(data, draw)))
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert items(first) == items(second)


@pytest.mark.parametrize("kind", TYPES)
@few
@given(draw=draws, seed=seeds, more=st.integers(0, 3))
def test_a_task_that_is_small_enough_stays_as_it_is(kind: str, draw: random.Random, seed: int, more: int) -> None:
    data = make(kind, draw, CANDIDATES)
    rows = len(
        data.texts if isinstance(data, LabelledData) else data.first if isinstance(data, PairData) else data.queries
    )
    assert subsample(task(kind), data, rows + more, seed) is data


@few
@given(draw=draws, seed=seeds, size=st.integers(2, 29))
def test_a_query_keeps_all_that_was_judged_for_it(draw: random.Random, seed: int, size: int) -> None:
    data = make("retrieval", draw)
    found = subsample(task("retrieval"), data, size, seed)
    assert isinstance(data, RetrievalData) and isinstance(found, RetrievalData)
    assert len(found.queries) == size and set(found.relevant) == set(found.queries)
    assert all(found.relevant[query] == data.relevant[query] for query in found.queries)
    assert {passage for scores in found.relevant.values() for passage in scores} <= set(found.corpus)
    assert len(found.corpus) <= size * (4 + proxies.HARD + proxies.OTHERS)
    assert [*found.corpus] == [key for key in data.corpus if key in found.corpus], "the order of the data"


@pytest.mark.parametrize("kind", ["classification", "pair"])
@few
@given(draw=draws, seed=seeds, size=st.integers(2, 29))
def test_labels_are_in_proportion(kind: str, draw: random.Random, seed: int, size: int) -> None:
    data = make(kind, draw)
    found = tried(kind, data, size, seed)
    if found is None:
        return
    before, after = (Counter(one.labels if isinstance(one, LabelledData) else one.scores) for one in (data, found))
    assert after.total() == size
    for label, count in before.items():
        # Webster's method: no other label may be better entitled to the last row, so the share is off by little
        assert abs(after[label] - size * count / before.total()) < 1 + len(before) / 4
        if after[label]:
            worst = (2 * after[label] - 1) / count
            assert all(worst <= (2 * after[other] + 1) / before[other] + 1e-9 for other in before if other != label)


@few
@given(draw=draws, seed=seeds, size=st.integers(2, 29))
def test_every_cluster_has_two_texts(draw: random.Random, seed: int, size: int) -> None:
    found = tried("clustering", make("clustering", draw), size, seed)
    if found is not None:
        assert isinstance(found, LabelledData)
        assert min(Counter(found.labels).values()) >= 2 and len(set(found.labels)) >= 2
        assert len(found.texts) in (size, size - 1)


def test_scores_of_all_heights_are_kept() -> None:
    scores = [n / 100 for n in range(500)]
    data = PairData([f"a{n}" for n in range(500)], [f"b{n}" for n in range(500)], scores)
    found = subsample(task("sts"), data, 50, 0)
    assert isinstance(found, PairData)
    assert np.histogram(found.scores, bins=10, range=(0, 5))[0].tolist() == [5] * 10


def test_another_seed_takes_other_rows() -> None:
    data = make("bitext", random.Random(0))
    first, second, again = (subsample(task("bitext"), data, 10, seed) for seed in (0, 1, 0))
    assert first != second and first == again


def test_hard_distractors_share_rare_words_with_the_query() -> None:
    corpus = {f"p{n}": ("", f"the {word} and the other") for n, word in enumerate(NOUNS * 20)}
    corpus |= {
        "good": ("", "how to sort"),
        "near": ("sort", "a list quickly"),
        "judged": ("", "sort a list"),
        "far": ("", "the"),
    }
    queries = {"q": "sort a list", "other": "the bank"}
    data = RetrievalData(corpus, queries, {"q": {"good": 1, "judged": 0}, "other": {"p6": 1}})
    for seed in range(20):
        found = subsample(task("retrieval"), data, 2, seed, hard=1, others=0)
        assert isinstance(found, RetrievalData)
        assert {"good", "judged", "near", "p6"} <= set(found.corpus)
        assert len(found.corpus) == 5, "and one about banks"
    assert len(found.corpus["near"]) == 2


def test_queries_and_passages_of_the_same_ids_are_drawn_apart() -> None:
    """Else the random passages would be those relevant for the queries."""
    ids = [str(n) for n in range(1000)]
    data = RetrievalData(
        {key: ("", f"passage{key}") for key in ids}, {key: f"query{key}" for key in ids}, {key: {key: 1} for key in ids}
    )
    found = subsample(task("retrieval"), data, 20, 0)
    assert isinstance(found, RetrievalData)
    assert len(found.corpus) > 110, "20 relevant ones and 100 others, few of them the same"


def test_a_large_corpus_is_cut_down_even_where_all_queries_stay() -> None:
    data = RetrievalData({str(n): ("", f"text {n}") for n in range(1000)}, {"q": "text 5"}, {"q": {"5": 1}})
    found = subsample(task("retrieval"), data, 4, 0)
    assert isinstance(found, RetrievalData)
    assert "5" in found.corpus and 4 * proxies.OTHERS < len(found.corpus) <= 4 * proxies.OTHERS + proxies.HARD + 1


def test_the_hardest_of_many_negatives_stay() -> None:
    hard = [f"sort the list {n}" for n in range(CANDIDATES // 2)]
    rest = [f"something else {n}" for n in range(200)]
    negatives = [*rest[:100], *hard, *rest[100:]]
    data = RankingData(["sort a list", "b"], [["yes"], ["yes"]], [negatives, negatives])
    found = subsample(task("reranking"), RankingData(*(part * 2 for part in vars(data).values())), 2, 0)
    assert isinstance(found, RankingData)
    for query, kept in zip(found.queries, found.negatives, strict=True):
        assert len(kept) == CANDIDATES and kept == [one for one in negatives if one in kept]
        assert query == "b" or set(hard) <= set(kept)


def test_what_trains_the_probe_stays() -> None:
    data = LabelledData(["a", "b", "c", "d"] * 5, [0, 1, 2, 3] * 5, ["x", "y"] * 99, [0, 1] * 99)
    found = subsample(task("classification"), data, 8, 0)
    assert isinstance(found, LabelledData)
    assert (found.train_texts, found.train_labels) == (data.train_texts, data.train_labels)
    assert Counter(found.labels) == {0: 2, 1: 2, 2: 2, 3: 2}


@pytest.mark.parametrize(
    ("kind", "data", "least"),
    [
        ("pair", PairData(["a"] * 42, ["b"] * 42, [0.0] * 38 + [1.0] * 4), 6),
        ("sts", PairData(["a"] * 99, ["b"] * 99, [0.0] * 98 + [1.0]), 50),
        ("sts", PairData(["a"] * 99, ["b"] * 99, [0.0] + [1.0] * 98), 50),
        ("classification", LabelledData(["a"] * 41, [0] * 40 + [1], ["x"], [0]), 21),
        ("classification", LabelledData(["a"] * 44, [0] * 20 + [1] * 20 + [2] * 4, ["x"], [2]), 7),
        ("clustering", LabelledData(["a"] * 42, [0] * 40 + [1] * 2, [], []), 22),
        ("clustering", LabelledData(["a"] * 40, list(range(40)), [], []), 40),
    ],
)
def test_too_few_rows_to_be_scored(kind: str, data: FolderData, least: int) -> None:
    with pytest.raises(EvaluationError, match=rf"Task mine: its proxy .* Set its size to {least} or more"):
        subsample(task(kind), data, least - 1, 0)
    assert subsample(task(kind), data, least, 0) is not None


def test_proxies_of_tasks(tasks: dict[str, TaskConfig]) -> None:
    config = EvaluationConfig(in_domain=(tasks["sts"],), selection=(tasks["pair"],))
    found = proxy_of(config, 8)
    assert [(one.name, one.size, one.path) for one in found] == [
        ("Mysts.8", 8, tasks["sts"].path),
        ("Mypair.8", 8, tasks["pair"].path),
    ]
    assert proxy_of(found, 8) == proxy_of(found, 9) == found, "no larger than it is"
    assert proxy_of(found, 4)[0].size == 4
    with pytest.raises(EvaluationError, match="Task STS12 is one of mteb's own"):
        proxy_of([TaskConfig(name="STS12")], 8)
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        proxy_of(config, 1)


def test_mtebs_own_tasks_have_no_size() -> None:
    with pytest.raises(ValidationError, match="task STS12: mteb's own tasks have no size"):
        TaskConfig(name="STS12", size=64)


def test_the_size_is_part_of_a_scores_key(tasks: dict[str, TaskConfig], tiny: ModelRef) -> None:
    whole, config = tasks["sts"], EvaluationConfig()
    spec = score_spec(tiny, whole, config)
    assert "proxy" not in spec, "keys of whole tasks are what they were before there were proxies"
    sized = whole.model_copy(update={"size": 8})
    assert score_spec(tiny, sized, config) == spec | {"proxy": {"size": 8, "version": proxies.VERSION}}


def test_sizes_and_checks_are_those_of_the_proxy(tasks: dict[str, TaskConfig], tmp_path: Path) -> None:
    (small,) = proxy_of([tasks["bitext"]], 4)
    sizes = task_sizes([tasks["bitext"], small])
    assert 0 < sizes[small.name] < sizes["Mybitext"] / 3
    rows = [{"text": one, "label": int(n == 0)} for n, (one, _) in enumerate(sentences(24))]
    write_jsonl(tmp_path / "test.jsonl", rows)
    rare = TaskConfig(name="rare", path=str(tmp_path), type="clustering", size=8)
    with pytest.raises(EvaluationError, match="Task rare: its proxy of size 8"):
        check_tasks(EvaluationConfig(in_domain=(rare,)))


def test_a_proxy_is_cut_once_and_again_when_its_file_changes(tmp_path: Path) -> None:
    small = TaskConfig(name="t", path=str(tmp_path), type="bitext", size=2)
    with pytest.raises(EvaluationError, match=r"test\.jsonl does not exist"):
        load_data(small, 0)
    rows = [{"sentence1": one, "sentence2": topic} for one, topic in sentences(9)]
    write_jsonl(tmp_path / "test.jsonl", rows)
    assert load_data(small, 0) is load_data(small, 0)
    assert load_data(small, 0) != load_data(small, 1)
    write_jsonl(tmp_path / "test.jsonl", rows[:2])
    assert load_data(small, 0) == read_folder(small)


@pytest.mark.parametrize("size", [None, 2])
def test_a_file_that_changed_after_it_was_hashed_is_named(size: int | None, tmp_path: Path) -> None:
    own = TaskConfig(name="t", path=str(tmp_path), type="bitext", size=size)
    rows = [{"sentence1": one, "sentence2": topic} for one, topic in sentences(9)]
    hashes = {"test.jsonl": file_digest(write_jsonl(tmp_path / "test.jsonl", rows))}
    before = load_data(own, 7, hashes)
    assert before == load_data(own, 7)
    write_jsonl(tmp_path / "test.jsonl", rows[:-1])
    with pytest.raises(EvaluationError, match=rf"Task t: {tmp_path}/test\.jsonl has changed since the job looked"):
        load_data(own, 8, hashes)
    if size is not None:
        assert load_data(own, 7, hashes) == before  # of the data that has these hashes


@pytest.mark.parametrize("kind", TYPES)
def test_a_proxy_is_evaluated_like_any_task(
    kind: str, tiny: ModelRef, tasks: dict[str, TaskConfig], tmp_path: Path
) -> None:
    config = EvaluationConfig()
    evaluator = Evaluator(Store(tmp_path), config)
    (small,) = proxy_of([tasks[kind]], 4 if kind in ("retrieval", "reranking") else 12)
    spec = score_spec(tiny, small, config)
    key, figures = evaluator.score(tiny, small, spec, score_inputs(tiny))
    artifact = evaluator.store.get("scores", key)
    assert artifact is not None and (artifact.local() / f"My{kind}.{small.size}.json").exists()
    assert 0 < abs(figures["score"]) <= 1
    loaded = load_task(small, 42).dataset
    if kind in ("retrieval", "reranking"):
        assert len(loaded["default"]["test"]["queries"]) == 4
    else:
        assert len(loaded["test"]) == 12
