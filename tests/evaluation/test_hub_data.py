from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import mteb
import pytest
from huggingface_hub import constants

from boom_ray.config import TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.hub_data import check_data, warn_of_data

NAMED = [TaskConfig(name="STS12"), TaskConfig(name="STS13")]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def have(name: str, revision: str | None = None) -> None:
        dataset = mteb.get_task(name).metadata.dataset
        folder = tmp_path / f"datasets--{dataset['path'].replace('/', '--')}" / "snapshots"
        (folder / (revision or dataset["revision"])).mkdir(parents=True)
        (folder / (revision or dataset["revision"]) / "test.jsonl").write_text("{}")

    return have


@pytest.fixture
def hub() -> Iterator[str]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "mteb-private" in self.path:  # as the hub refuses what one may not see
                self.send_response(401)
                self.send_header("X-Error-Code", "RepoNotFound")
            else:
                self.send_response(503)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def test_without_a_network_every_task_is_said_to_be_here_or_missing(cache, caplog):
    cache("STS12")
    with pytest.raises(EvaluationError, match=r"1 of mteb's tasks .*: STS13\. On this machine: STS12\."):
        check_data([*NAMED, TaskConfig(name="own", path="/nowhere", type="sts")])
    warn_of_data(NAMED)
    assert "STS13. On this machine: STS12." in caplog.text
    cache("STS13")
    check_data(NAMED)


def test_a_hub_that_answers_will_do(cache, hub, monkeypatch, free_port):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    check_data(NAMED)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free_port}")
    with pytest.raises(EvaluationError, match="hub cannot be reached"):
        check_data(NAMED)


def test_data_of_another_revision_is_not_the_tasks(cache):
    cache("STS12", "another")
    with pytest.raises(EvaluationError, match=r"1 of mteb's tasks .*: STS12\. On this machine: none"):
        check_data(NAMED[:1])
    cache("STS12")
    check_data(NAMED[:1])


def test_private_data_that_is_not_here_is_named_while_the_hub_answers(cache, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    private = [TaskConfig(name=name) for name in ("French1Retrieval", "Code1Retrieval", "German1Retrieval")]
    cache("German1Retrieval")
    with pytest.raises(EvaluationError, match=r"2 of .* private: .*\nwithout: \[French1Retrieval, Code1Retrieval\]$"):
        check_data([*NAMED, *private])
    check_data([*NAMED, private[2]])
