from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ray.exceptions import RayTaskError

from boom_ray.config import MergeJobConfig, RunConfig, load_config
from boom_ray.errors import ConfigError, DataError, TrainingError
from boom_ray.flows.command import INTERRUPTED, command, main

DATASET = {"name": "a", "source": "a.jsonl", "task_type": "retrieval"}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"name": "run", "corpus": {"datasets": [DATASET]}}))
    return str(path)


def run(file: str, *arguments: str, error: BaseException | None = None) -> tuple[int, list[RunConfig]]:
    calls: list[RunConfig] = []

    def flow(config: RunConfig) -> int:
        calls.append(config)
        if error is not None:
            raise error
        return 0

    return command(RunConfig, flow, "a job", [file, *arguments]), calls


def test_the_flow_gets_the_configuration_and_gives_the_exit_code(file: str) -> None:
    code, calls = run(file, "training.epochs=3", "seed=5")
    assert code == 0
    assert [(one.training.epochs, one.seed, one.cluster.verbose) for one in calls] == [(3, 5, False)]
    assert command(RunConfig, lambda config: 7, "a job", [file]) == 7


def test_verbose_is_short_for_a_key(file: str) -> None:
    assert run(file, "--verbose")[1][0].cluster.verbose is True


def test_a_dry_run_is_offered_by_jobs_that_can(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "merge.yaml").write_text(yaml.safe_dump({"name": "m", "members": ["/a"]}))
    seen: list[MergeJobConfig] = []
    arguments = [str(tmp_path / "merge.yaml"), "name=n", "--dry-run", "merge.method=linear"]
    assert command(MergeJobConfig, lambda config: seen.append(config) or 0, "a job", arguments) == 0
    assert [(one.dry_run, one.name, one.merge.method) for one in seen] == [(True, "n", "linear")]
    with pytest.raises(SystemExit):
        run(file, "--dry-run")
    assert "unrecognized arguments: --dry-run" in capsys.readouterr().err


def test_print_config_prints_what_loads_to_the_same_and_runs_nothing(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, calls = run(file, "seed=5", "--print-config")
    assert (code, calls) == (0, [])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert load_config(RunConfig, tmp_path / "printed.yaml") == load_config(RunConfig, file, ["seed=5"])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("a.jsonl:3: the query is empty."), 1, "error: a.jsonl:3: the query is empty.\n"),
        (TrainingError("One of two members failed."), 1, "error: One of two members failed.\n"),
        (ConfigError("No cluster."), 2, "error: No cluster.\n"),
        (
            RayTaskError("task", "Traceback…", DataError("a.jsonl: bad.")).as_instanceof_cause(),
            1,
            "error: a.jsonl: bad.\n",
        ),
        (RayTaskError("task", "Traceback…", ConfigError("Too few GPUs.")), 2, "error: Too few GPUs.\n"),
    ],
)
def test_errors_a_user_can_act_on_are_plain_sentences_on_stderr(
    file: str, capsys: pytest.CaptureFixture[str], error: Exception, code: int, text: str
) -> None:
    assert run(file, error=error)[0] == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", text)


def test_a_wrong_configuration_is_code_2_and_runs_nothing(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, calls = run(file, "training.epoch=3")
    assert (code, calls) == (2, [])
    assert "training.epoch: unknown key; did you mean epochs?" in capsys.readouterr().err


def test_an_interrupt_says_what_is_saved(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file, error=KeyboardInterrupt())[0] == INTERRUPTED == 130
    assert "Run the same command again to continue." in capsys.readouterr().err


def test_a_bug_of_ours_keeps_its_traceback(file: str) -> None:
    bug = ZeroDivisionError("oops")
    with pytest.raises(ZeroDivisionError) as caught:
        run(file, error=bug)
    assert caught.value is bug


def test_arguments_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command(RunConfig, lambda config: 0, "Trains something.", ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "Trains something." in text and "--print-config" in text and "a.b=c" in text


@pytest.mark.parametrize(
    ("ending", "code"), [("return 3", 3), ("raise KeyboardInterrupt", 130), ("raise DataError('bad')", 1)]
)
def test_main_ends_the_process_with_the_code(file: str, ending: str, code: int) -> None:
    script = (
        "from boom_ray.config import RunConfig\n"
        "from boom_ray.errors import DataError\n"
        "from boom_ray.flows.command import main\n"
        "def flow(config, started):\n"
        "    print('started')\n"
        f"    {ending}\n"
        "main(RunConfig, flow, 'a job')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "started\n")
    assert "Traceback" not in done.stderr


def test_a_process_s_flow_is_told_when_the_process_began(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["job", file])
    seen: list[float] = []

    def flow(config: RunConfig, started: float | None = None) -> int:
        assert started is not None
        seen.append(time.monotonic() - started)
        return 0

    before = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        main(RunConfig, flow, "a job")
    assert ended.value.code == 0
    assert seen[0] > time.monotonic() - before, "the imports came before the call"
