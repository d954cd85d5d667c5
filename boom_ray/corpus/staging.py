"""First pass: one Ray Data pipeline reads the fragments of all new datasets and sorts their examples into buckets.

A bucket holds the examples whose ids begin with the same bits, so buckets in order are the dataset in the order of its
ids, and equal examples meet in one bucket. Staged files live under ``<store>/staging`` until the second pass
(`boom_ray.corpus.seal`) has made parts of them; a finished first pass is found again after an interruption.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

import boom_ray.runtime
from boom_ray.config import DatasetConfig
from boom_ray.corpus.examples import Example, to_example
from boom_ray.corpus.readers import BadRow, Reader
from boom_ray.corpus.schema import EXAMPLES
from boom_ray.corpus.sources import Fragment
from boom_ray.disk import is_owner_gone, owned_name
from boom_ray.errors import DataError, StoreError
from boom_ray.hashing import digest
from boom_ray.store import Store

ROWS_PER_TABLE = 4096
BUCKET_BYTES = 64 << 20
MAX_BUCKETS = 512  # Arrow writes at most 1024 partitions at once
COUNTS, REJECTS = "counts", "rejects"  # buckets of JSON rows instead of examples
LABELLED, CONTRASTIVE = "labelled", "contrastive"  # counts of examples by form
TAUGHT = "taught"  # count of examples with a teacher's scores
COMPLETE, ERRORS = "_complete", "_errors"
STAGED = EXAMPLES.append(pa.field("dataset", pa.string())).append(pa.field("bucket", pa.string()))


@dataclass(frozen=True)
class ReadPlan:
    """How the rows of one dataset are read.

    Attributes:
        dataset: its configuration.
        key: key of the dataset's artifact.
        buckets: number of buckets; a power of two.
        max_negatives: most negatives kept per example.
        strict: a bad row is an error.
    """

    dataset: DatasetConfig
    key: str
    buckets: int
    max_negatives: int
    strict: bool

    def bucket_of(self, example_id: bytes) -> str:
        """Name of an example's bucket; names sort as ids do."""
        return f"{int.from_bytes(example_id[:2], 'big') * self.buckets >> 16:03x}"


def bucket_count(text_bytes: int) -> int:
    """Buckets for so many bytes of text: a power of two, about `BUCKET_BYTES` each, at most `MAX_BUCKETS`."""
    wanted = max(1, -(-text_bytes // BUCKET_BYTES))
    return min(MAX_BUCKETS, 1 << (wanted - 1).bit_length())


def read_fragment(fragment: Fragment, plan: ReadPlan) -> Iterator[pa.Table]:
    """Examples of one fragment, then its rejects and its counts, as tables of schema `STAGED`.

    Raises:
        DataError: a bad row, if the plan is strict, or an unreadable file.
    """
    reader, rows = Reader(fragment), _Rows(plan)
    counts: Counter[str] = Counter()
    for number, row in reader.rows():
        counts["read"] += 1
        try:
            if isinstance(row, BadRow):
                raise row
            example = to_example(row, plan.dataset, plan.max_negatives, counts)
        except BadRow as bad:
            file, line = reader.place(number)
            if plan.strict:
                raise _error(plan.dataset.name, file, line, bad) from None
            counts[f"rejected: {bad.reason}"] += 1
            raw = bad.raw or json.dumps(row, ensure_ascii=False, default=str)
            reject = {"file": file, "line": line, "reason": bad.reason, "detail": bad.detail, "row": raw}
            rows.add_note(REJECTS, reject)
        else:
            if example is not None:
                counts[LABELLED if example.label is not None else CONTRASTIVE] += 1
                counts[TAUGHT] += example.is_taught
                rows.add(example)
        if len(rows) >= ROWS_PER_TABLE:
            yield rows.table()
    rows.add_note(COUNTS, dict(counts))
    yield rows.table()


def _error(name: str, file: str, line: int, bad: BadRow) -> DataError:
    return DataError(
        f"Dataset {name}, {file}:{line}: {bad.detail}. Repair the row, or set corpus.on_bad_row=reject to count such "
        f"rows and set them aside."
    )


class _Rows:
    """Collects examples as columns."""

    def __init__(self, plan: ReadPlan) -> None:
        self._plan = plan
        self._columns: dict[str, list[Any]] = {name: [] for name in STAGED.names}

    def __len__(self) -> int:
        return len(self._columns["id"])

    def add(self, example: Example) -> None:
        example_id = example.id()
        self._append({"id": example_id, "bucket": self._plan.bucket_of(example_id), **vars(example)})

    def add_note(self, bucket: str, note: dict[str, Any]) -> None:
        text = json.dumps(note, ensure_ascii=False).encode("utf-8", "replace").decode()
        self._append({"id": bytes(16), "bucket": bucket, "query": text, "positives": [], "negatives": []})

    def table(self) -> pa.Table:
        """What was collected since the last call."""
        table = pa.table(self._columns, schema=STAGED)
        self._columns = {name: [] for name in STAGED.names}
        return table

    def _append(self, values: dict[str, Any]) -> None:
        values["dataset"] = self._plan.key
        for name, column in self._columns.items():
            column.append(values.get(name))


@dataclass(frozen=True)
class Stage:
    """A finished first pass: ``<path>/dataset=<key>/bucket=<name>/*.parquet``."""

    store: Store
    path: str

    def buckets(self, key: str) -> list[str]:
        """Names of a dataset's buckets that hold examples, in order."""
        found = self.store.fs.glob(f"{self.path}/dataset={key}/bucket=*")
        names = sorted(str(name).rsplit("=", 1)[1] for name in found)
        return [name for name in names if name not in {COUNTS, REJECTS}]

    def read(self, key: str, bucket: str, columns: list[str] | None = None) -> pa.Table:
        """All rows of a bucket, in no particular order.

        Raises:
            FileNotFoundError: the staged files are gone.
        """
        tables = list(self.tables(key, bucket, columns))
        if not tables:
            raise FileNotFoundError(f"{self.path}/dataset={key}/bucket={bucket}")
        return pa.concat_tables(tables)

    def tables(self, key: str, bucket: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The files of a bucket, one after the other; in the order of their fragments."""
        for name in sorted(self.store.fs.glob(f"{self.path}/dataset={key}/bucket={bucket}/*.parquet")):
            with self.store.fs.open(name, "rb") as stream:
                yield pq.ParquetFile(stream).read(columns=columns or EXAMPLES.names)

    def counts(self, key: str) -> Counter[str]:
        """What reading counted: rows read, rejected by reason, set aside, negatives by reason."""
        total: Counter[str] = Counter()
        for table in self.tables(key, COUNTS, ["query"]):
            for text in table["query"].to_pylist():
                total.update(json.loads(text))
        return total

    def rejects(self, key: str) -> Iterator[str]:
        """One JSON object per rejected row."""
        for table in self.tables(key, REJECTS, ["query"]):
            yield from table["query"].to_pylist()

    def fail(self, fragment: int, error: DataError) -> None:
        """Leave a fragment's error for the driver; the other fragments are not read then."""
        self.store.fs.makedirs(f"{self.path}/{ERRORS}", exist_ok=True)
        self.store.fs.pipe_file(f"{self.path}/{ERRORS}/{fragment:08d}", str(error).encode())

    def first_error(self) -> DataError | None:
        """The error of the first fragment that failed."""
        for name in sorted(self.store.fs.glob(f"{self.path}/{ERRORS}/*")):
            return DataError(self.store.fs.cat_file(name).decode())
        return None

    def remove(self) -> None:
        """Delete the staged files; every part of them is in the store."""
        with contextlib.suppress(FileNotFoundError):
            self.store.fs.rm(self.path, recursive=True)
        with contextlib.suppress(OSError):
            self.store.fs.rmdir(self.path.rsplit("/", 1)[0])  # unless another run of the same datasets is there


def stage(
    store: Store, plans: list[ReadPlan], pieces: list[Fragment], progress: Callable[[dict[str, int]], None]
) -> Stage:
    """Read all fragments and write their examples into buckets, or find what an interrupted run has finished.

    Args:
        store: staged files are written beside its artifacts.
        plans: the datasets to read.
        pieces: their fragments; `Fragment.dataset` is an index into ``plans``.
        progress: called about once a second with the fragments done by dataset key.

    Raises:
        DataError: a bad row or an unreadable file.
    """
    root = f"{fsspec.url_to_fs(store.root)[1]}/staging/{digest([plan.key for plan in plans])}"
    for place in store.fs.glob(f"{root}/*/{COMPLETE}"):
        return Stage(store, str(place).removesuffix(f"/{COMPLETE}"))
    _remove_abandoned(store, root)
    result = Stage(store, f"{root}/{owned_name()}")
    try:
        store.fs.makedirs(result.path, exist_ok=True)
        with _watch(result, [plan.key for plan in plans], progress):
            _run(result, plans, pieces)
        error = result.first_error()
        if error is not None:
            raise error
    except Exception as error:
        result.remove()
        if isinstance(fault := boom_ray.runtime.cause(error), OSError):
            raise no_space(store, fault) from error
        raise
    with store.fs.open(f"{result.path}/{COMPLETE}", "wb") as stream:
        stream.write(b"1")
    return result


def _run(result: Stage, plans: list[ReadPlan], pieces: list[Fragment]) -> None:
    import ray

    def read(batch: dict[str, Any]) -> Iterator[pa.Table]:
        for number in batch["fragment"].tolist():
            if result.first_error() is not None:
                return
            try:
                yield from read_fragment(pieces[number], plans[pieces[number].dataset])
            except DataError as error:  # Ray Data would log three tracebacks and add to the text
                result.fail(number, error)

    rows = [{"fragment": number} for number in range(len(pieces))]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(result.store.fs))
    dataset.map_batches(read, batch_size=None, batch_format="numpy").write_parquet(
        result.path,
        partition_cols=["dataset", "bucket"],
        filesystem=pafs.LocalFileSystem() if result.store.is_local else filesystem,
        compression="lz4",
    )


def no_space(store: Store, error: OSError) -> StoreError:
    """The error of a store that cannot be written; files that cannot be read are a `DataError` by now."""
    return StoreError(
        f"Writing the corpus under {store.root} failed: {error}. What was finished before is kept; free space or fix "
        f"permissions and run the same command again."
    )


@contextlib.contextmanager
def _watch(result: Stage, keys: list[str], progress: Callable[[dict[str, int]], None]) -> Iterator[None]:
    """Report fragments done: each leaves one file of counts. Cheaper than an actor that collects events."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0 if result.store.is_local else 10.0):
            with contextlib.suppress(OSError):
                progress({key: len(_counted(result, key)) for key in keys})

    thread = threading.Thread(target=watch, name="staging", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _counted(result: Stage, key: str) -> list[str]:
    found: list[str] = result.store.fs.glob(f"{result.path}/dataset={key}/bucket={COUNTS}/*.parquet")
    return found


def _remove_abandoned(store: Store, root: str) -> None:
    """Delete unfinished passes of processes of this machine that are gone."""
    for place in store.fs.glob(f"{root}/*"):
        if is_owner_gone(str(place).rsplit("/", 1)[1]):
            store.fs.rm(place, recursive=True)
