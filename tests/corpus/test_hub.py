from __future__ import annotations

import pytest

from boom_ray.corpus import hub
from boom_ray.corpus.sources import fragments, locate, source_digest
from boom_ray.errors import DataError
from tests.corpus.conftest import dataset, write_jsonl


@pytest.fixture
def saved(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict(
        {"text": [f"t{n}" for n in range(5)], "label": [0, 1, 1, 0, 1]}, features=features
    )
    datasets.DatasetDict({"train": data, "test": data.select([4, 0])}).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_saved_dataset_is_found_and_read_by_ranges(saved):
    (file,) = locate(dataset(saved))
    assert (file.kind, file.extra) == ("huggingface", ("", "train"))
    assert [(one.start, one.end) for one in fragments([file], 0, 1)] == [(0, 5)]
    rows = [row for cut in ((0, 2), (2, 5)) for row in hub.read(str(saved), "", "train", *cut)]
    assert [number for number, _ in rows] == [1, 2, 3, 4, 5]
    assert rows[1][1] == {"text": "t1", "label": 1, "label_text": "yes"}


def test_selected_rows_are_read_through_their_indices(saved):
    assert [row["text"] for _, row in hub.read(str(saved), "", "test", 0, 2)] == ["t4", "t0"]


def test_digest_follows_the_split(saved):
    train, test = (source_digest(locate(dataset(saved, split=split))) for split in ("train", "test"))
    assert train != test


def test_a_split_that_is_not_there(saved):
    with pytest.raises(DataError, match=r"no split dev; it has test, train"):
        locate(dataset(saved, split="dev"))


def test_offline_a_hub_name_says_what_to_do():
    with pytest.raises(DataError, match=r"owner/no-such \(subset s, split train\) cannot be loaded.*local folder"):
        locate(dataset("owner/no-such", format="huggingface", subset="s"))


def test_data_files_of_a_split(tmp_path):
    for name in ("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000.jsonl"):
        write_jsonl(tmp_path / name, [{}])
    files = locate(dataset(tmp_path, format="huggingface"))
    assert [file.path.rsplit("/", 1)[1][:11] for file in files] == ["train-00000", "train-00001"]
    assert len(locate(dataset(tmp_path, format="huggingface", split="dev"))) == 3
