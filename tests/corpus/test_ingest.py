"""The whole stage on a real Ray cluster; few pipelines, since each takes a second or more."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boom_ray.artifacts.tokens import TOKEN_FILE, open_corpus
from boom_ray.config import LossConfig
from boom_ray.corpus import ingest as ingest_module
from boom_ray.corpus.counts import counts_table
from boom_ray.corpus.ingest import ingest
from boom_ray.errors import DataError
from boom_ray.hashing import digest, normalized_text_key
from boom_ray.store import Store
from tests.corpus.conftest import byte_tokens, corpus, dataset, spec, write_jsonl

pytestmark = pytest.mark.ray

PAIRS = [
    {"query": f"q{n} \u00e9", "pos": [f"p{n}", f"p{n % 7}!"], "neg": [f"n{n}"] * (n % 3), "pos_scores": [0.5, n / 100]}
    | ({"prompt": "own"} if n % 5 == 0 else {})
    for n in range(300)
]
LABELLED = [{"text": f"text {n}", "label": n % 4} for n in range(120)]
SCORED = [{"sentence1": f"a{n}", "sentence2": f"b{n}", "score": n % 6} for n in range(60)]


def token_bytes(store: Store, artifact, name: str) -> list[bytes]:
    folders = [Path(store.location("part", key)) for key in artifact.figures["parts"][name]]
    return [(folder / TOKEN_FILE).read_bytes() for folder in folders]


def shards(folder: Path, rows: list, count: int) -> Path:
    for shard in range(count):
        write_jsonl(folder / f"{shard}.jsonl", rows[shard::count])
    return folder


def test_same_rows_same_bytes(tmp_path, ray_cluster, monkeypatch):
    """One file or three, the other way round, in pieces of any size: one fingerprint, the same parts."""
    monkeypatch.setattr(ingest_module, "bucket_count", lambda size: 4)
    results = []
    for number, (count, turn, piece) in enumerate([(1, 1, 32 << 20), (3, -1, 700)]):
        monkeypatch.setattr(
            ingest_module, "fragments", lambda files, index, size, piece=piece: _fragments(files, index, piece)
        )
        home = tmp_path / str(number)
        rows = {"pairs": PAIRS, "labelled": LABELLED, "scored": SCORED}
        folders = {name: shards(home / name, made[::turn], count) for name, made in rows.items()}
        config = corpus(
            dataset(folders["pairs"], name="pairs", instruction="do"),
            dataset(folders["labelled"], "classification", name="labelled"),
            dataset(folders["scored"], "sts", name="scored", score_range=(0, 5)),
        )
        store = Store(home / "store")
        model = spec(query_template="{task}: {text}")
        results.append((store, ingest(store, config, model, {})))
        assert not list((home / "store" / "staging").iterdir())
    (store_a, one), (store_b, other) = results
    assert one.key != other.key
    assert one.fingerprint == other.fingerprint
    for name in ("pairs", "labelled", "scored"):
        assert len(one.figures["parts"][name]) == 4
        assert token_bytes(store_a, one, name) == token_bytes(store_b, other, name)
    opened = open_corpus(store_b, other.figures["parts"])
    assert {name: len(data) for name, data in opened.items()} == {"pairs": 300, "labelled": 120, "scored": 20}
    assert np.all(np.diff(opened["pairs"].ids.astype(object)) > 0)
    queries = {tuple(opened["pairs"].example(row).query.tolist()) for row in range(300)}
    prompts = {True: "own", False: "do"}
    assert queries == {tuple(byte_tokens(f"{prompts[n % 5 == 0]}: q{n} é", 32)) for n in range(300)}


_fragments = ingest_module.fragments


@pytest.fixture
def sources(tmp_path) -> dict[str, Path]:
    """The same three triplets in every form that has no labels or scores."""
    rows = [{"anchor": f"a{n}", "positive": f"p{n}", "negative": f"n{n}"} for n in range(3)]
    write_jsonl(tmp_path / "t.jsonl", rows)
    write_jsonl(tmp_path / "fe.jsonl", [{"query": f"a{n}", "pos": [f"p{n}"], "neg": [f"n{n}"]} for n in range(3)])
    write_jsonl(
        tmp_path / "r.jsonl", [{"query": f"a{n}", "positive": [f"p{n}"], "negative": [f"n{n}"]} for n in range(3)]
    )
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress((tmp_path / "t.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["anchor", "positive", "negative"])
        writer.writeheader()
        writer.writerows(rows)
    beir = tmp_path / "beir"
    write_jsonl(beir / "corpus.jsonl", [{"_id": f"{role}{n}", "text": f"{role}{n}"} for role in "pn" for n in range(3)])
    write_jsonl(beir / "queries.jsonl", [{"_id": str(n), "text": f"a{n}"} for n in range(3)])
    (beir / "qrels").mkdir()
    lines = [f"{n}\tp{n}\t1\n{n}\tn{n}\t0\n" for n in range(3)]
    (beir / "qrels" / "train.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *lines]))
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    named = ("t.jsonl", "fe.jsonl", "r.jsonl", "t.jsonl.gz", "t.parquet", "t.csv", "beir", "saved")
    return {name: tmp_path / name for name in named}


def test_every_form_gives_the_same_examples(sources, tmp_path, ray_cluster):
    config = corpus(*[dataset(path, name=name) for name, path in sources.items()])
    store = Store(tmp_path / "store")
    artifact = ingest(store, config, spec(), {})
    assert {row["kept"] for row in counts_table(artifact)} == {3}
    assert len({one for name in sources for one in token_bytes(store, artifact, name)}) == 1
    assert len({store.get("dataset", facts["key"]).fingerprint for facts in artifact.figures["datasets"].values()}) == 1


def test_reject_overlap_cache_and_repair(tmp_path, ray_cluster):
    rows = [*PAIRS[:20], PAIRS[0], {"query": "", "pos": ["p"]}, "{oops", {"query": "only"}, {"query": 3, "pos": "p"}]
    first = write_jsonl(tmp_path / "first.jsonl", rows)
    second = write_jsonl(tmp_path / "second.jsonl", SCORED)
    config = corpus(
        dataset(first, name="first"), dataset(second, "pair", name="second", score_range=(0, 5)), on_bad_row="reject"
    )
    held_out = {"task": np.array([normalized_text_key("Q1 É")], dtype=np.uint64)}
    store, events = Store(tmp_path / "store"), []
    made = ingest(store, config, spec(), held_out, events.append)

    facts = made.figures["datasets"]["first"]
    assert {name: facts[name] for name in ("read", "rows", "duplicates", "overlapping")} == {
        "read": 25,
        "rows": 19,
        "duplicates": 1,
        "overlapping": 1,
    }
    assert facts["rejected"] == {"empty query": 1, "malformed JSON": 1, "missing column": 1, "wrong type": 1}
    assert made.figures["datasets"]["second"]["set_aside"] == {"below positive_from": 40}
    stored = store.get("dataset", facts["key"])
    lines = [json.loads(line) for line in (stored.local() / "rejects.jsonl").read_text().splitlines()]
    assert [(one["line"], one["reason"]) for one in lines] == [
        (22, "empty query"),
        (23, "malformed JSON"),
        (24, "missing column"),
        (25, "wrong type"),
    ]
    assert facts["taught"] == 0  # only their positives have scores
    policies = {name: (one["in_batch"], one["loss"]) for name, one in made.figures["datasets"].items()}
    assert policies == dict.fromkeys(("first", "second"), (True, LossConfig().identity()))
    assert {name: (one["in_batch"], one["loss"]) for name, one in made.spec.items()} == policies

    ends = {event.unit: event.figures["rows"] for event in events if event.done == event.total}
    assert ends == {"first": 19, "second": 20}

    events.clear()
    assert ingest(store, config, spec(), held_out, events.append) == made
    assert {(event.unit, event.note) for event in events} == {("first", "cached"), ("second", "cached")}

    part = Path(store.location("part", made.figures["parts"]["first"][0])) / TOKEN_FILE
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    events.clear()
    assert ingest(store, config, spec(), held_out, events.append) == made
    assert part.read_bytes() == whole
    assert ("second", "cached") in {(event.unit, event.note) for event in events}
    assert ("first", "cached") not in {(event.unit, event.note) for event in events}


@pytest.mark.parametrize(
    ("rows", "fields", "text"),
    [
        ([*PAIRS[:9], "{oops"], {}, r"Dataset d, .*d\.jsonl:10: the line is not JSON .*corpus\.on_bad_row=reject"),
        ([{"query": "q", "body": "b"}], {}, r"d\.jsonl:1: a positive column .* is missing; present are query, body"),
        (SCORED, {"task_type": "sts"}, r"d\.jsonl:3: the score 2 in column score is outside score_range \[0, 1\]"),
        (LABELLED[::4], {"task_type": "classification"}, r"at least two labels for negatives; its only label is '0'"),
        (SCORED[:1], {"task_type": "sts"}, r"Dataset d keeps no row of 1 read \(below positive_from: 1\)"),
        ([*LABELLED, *PAIRS], {"task_type": "clustering"}, r"rows of two forms: 120 with a text .* 300 with a query"),
        ([], {}, r"Dataset d keeps no row of 0 read \(its files are empty\)"),
        (
            PAIRS,
            {"loss": {"kind": "cosent"}},
            r"d\.jsonl:1: a score column \(score, label\) is missing.*columns\.score",
        ),
        (SCORED, {"task_type": "pair", "score_range": (0, 5), "loss": {"kind": "kl"}}, "columns pos_scores and neg_sc"),
    ],
)
def test_errors_reach_the_caller_as_they_are(tmp_path, ray_cluster, capfd, rows, fields, text):
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    store = Store(tmp_path / "store")
    with pytest.raises(DataError, match=text) as caught:
        ingest(store, corpus(dataset(path, **fields)), spec(), {})
    assert "UDF" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err
    assert not list((tmp_path / "store" / "staging").iterdir())


def test_an_interrupted_ingest_continues_with_what_it_had_staged(tmp_path, ray_cluster, monkeypatch):
    config = corpus(dataset(write_jsonl(tmp_path / "d.jsonl", PAIRS)))
    store = Store(tmp_path / "store")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest_module, "_seal_all", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ingest(store, config, spec(), {})
    with monkeypatch.context() as patch:
        patch.setattr("boom_ray.corpus.staging._run", interrupt)
        continued = ingest(store, config, spec(), {})
    undisturbed = ingest(Store(tmp_path / "other"), config, spec(), {})
    assert continued.fingerprint == undisturbed.fingerprint
    assert continued.figures == undisturbed.figures


def test_near_duplicates_are_dropped_where_wanted_and_every_row_is_accounted_for(tmp_path, ray_cluster):
    text = "how can i reset the password of my online banking account"
    planted = [text, f"{text.upper()}?", text.replace("the password", "the passwords"), f"Hello, {text}"]
    rows = [{"query": query, "pos": [f"p{n}"]} for n, query in enumerate(planted)]
    rows += [{"query": f"q{n}", "pos": [digest(n), f"p{n}"]} for n in range(40)]
    rows += [{"query": "q", "pos": ["p", f"{digest(7)}!"]}, rows[0]]
    config = corpus(dataset(write_jsonl(tmp_path / "d.jsonl", rows)))
    held_out = {"task": np.array([normalized_text_key(text)], dtype=np.uint64)}
    near_texts = {"task": [text, f"({digest(7)})"], "other": ["unlike all else that is written here"]}
    store, kept = Store(tmp_path / "store"), {}
    for name, wanted in {"exact": None, "near": {"threshold": 0.95}, "default": {}}.items():
        changed = config.model_validate(config.model_dump() | {"near_duplicates": wanted})
        facts = ingest(store, changed, spec(), held_out, near_texts=near_texts).figures["datasets"]["d"]
        kept[name] = facts["rows"]
        assert facts["read"] == sum(facts[one] for one in ("rows", "duplicates", "overlapping", "near_duplicates"))
        assert (facts["duplicates"], facts["overlapping"]) == (1, 1)
        expected = {} if wanted is None else {"task": facts["near_duplicates"]}
        assert facts["near_duplicates_by_task"] == expected
    assert kept == {"exact": 44, "near": 41, "default": 39}


def test_what_changes_a_dataset_and_what_does_not(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", PAIRS)
    same = write_jsonl(tmp_path / "elsewhere" / "e.jsonl", PAIRS)

    def key(source=path, model=None, held_out=None, config=None, near=None, **fields):
        one = dataset(source, **fields)
        return ingest_module._plan(one, corpus(one, **(config or {})), model or spec(), held_out or {}, near or {}).key

    base = key()
    assert key(near={"t": ["text"]}) == base, "without corpus.near_duplicates, keys are those of earlier versions"
    assert {key(same), key(name="other"), key(in_batch=False), key(config={"fragment_mb": 1})} == {base}
    assert {key(loss={"temperature": 0.1}), key(loss={"kind": "kl"}), key(loss={"margin": 0.1})} == {base}
    assert key(loss={"kind": "cosent"}) == key(loss={"kind": "angle", "temperature": 0.1})
    changed = [
        key(write_jsonl(tmp_path / "f.jsonl", PAIRS[1:])),
        key(instruction="do"),
        key(symmetric=True),
        key(loss={"kind": "cosent"}),
        key(config={"max_query_tokens": 31}),
        key(config={"max_negatives": 1}),
        key(config={"on_bad_row": "reject"}),
        key(model=spec(query_template="x{text}")),
        key(held_out={"t": np.array([1], dtype=np.uint64)}),
        key(config={"near_duplicates": {}}),
        key(config={"near_duplicates": {"threshold": 0.9}}),
        key(config={"near_duplicates": {"min_characters": 30}}),
        key(config={"near_duplicates": {}}, near={"t": ["text"]}),
    ]
    assert len({base, *changed}) == 1 + len(changed)


def test_losses_and_the_scores_they_need(tmp_path, ray_cluster):
    """Every pair of a graded dataset is an example; what another loss left in the store is checked for scores, too."""
    store = Store(tmp_path / "store")
    rows = [{"query": f"q{n}", "pos": [f"p{n}"], "neg": [f"n{n}"]} for n in range(20)]
    untaught = write_jsonl(tmp_path / "untaught.jsonl", rows)
    taught = write_jsonl(tmp_path / "taught.jsonl", [*rows, rows[0] | {"pos_scores": [2], "neg_scores": [-1]}])
    scored = write_jsonl(tmp_path / "scored.jsonl", SCORED)

    def datasets(*others, **loss):
        graded = dataset(scored, "sts", name="graded", score_range=(0, 5), loss={"kind": "angle"})
        return corpus(graded, dataset(taught, name="taught", loss={"kind": "kl"} | loss), *others)

    plain = dataset(untaught, name="plain")
    made = ingest(store, datasets(plain), spec(), {})
    figures = made.figures["datasets"]
    assert {name: (one["rows"], one["taught"]) for name, one in figures.items()} == {
        "graded": (60, 0),
        "taught": (21, 1),
        "plain": (20, 0),
    }
    assert {name: one["loss"]["kind"] for name, one in figures.items()} == {
        "graded": "angle",
        "taught": "kl",
        "plain": "infonce",
    }
    data = open_corpus(store, made.figures["parts"])
    assert sorted({round(data["graded"].example(row).score * 5) for row in range(60)}) == list(range(6))
    lists = [data["taught"].example(row).positive_scores for row in range(21)]
    assert [one.tolist() for one in lists if one is not None] == [[2.0]]

    events = []
    other = ingest(store, datasets(plain, temperature=0.1), spec(), {}, events.append)
    assert {event.note for event in events} == {"cached"}
    assert (other.fingerprint, other.figures["parts"]) == (made.fingerprint, made.figures["parts"])
    assert other.key != made.key
    with pytest.raises(
        DataError, match=r"Dataset plain: corpus\.datasets\.plain\.loss\.kind=margin_mse needs a teacher"
    ):
        ingest(store, datasets(dataset(untaught, name="plain", loss={"kind": "margin_mse"})), spec(), {})
    with pytest.raises(DataError, match=r"Dataset late: a score column .* is missing"):
        late = dataset(untaught, name="late", loss={"kind": "cosent"})
        ingest(store, corpus(late, on_bad_row="reject"), spec(), {})
