"""Starting Ray the way boom_ray needs it, and getting errors and events back from its workers.

Import this module before ``ray`` anywhere in the project: several switches are read when Ray is imported.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_USE_DATASOURCE_V2": "0",  # its Parquet reader turns a small corpus into one slow block
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default of 2 s is paid at the end of every member
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "TOKENIZERS_PARALLELISM": "false",
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402  (the environment above must be set first)
from ray.util.queue import Empty, Queue  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from boom_ray.config.cluster import ClusterConfig  # noqa: E402
from boom_ray.errors import BoomError, ConfigError  # noqa: E402
from boom_ray.events import Event, Report  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)
NOISY = ("ray", "ray.data", "ray.train", "ray.tune", "ray.serve")


@contextlib.contextmanager
def cluster(config: ClusterConfig) -> Iterator[None]:
    """Connect to the cluster of the configuration or start one here; what was started here is ended on the way out.

    Under ``ray job submit`` Ray sets RAY_ADDRESS and the job joins the cluster that runs it.

    Raises:
        ConfigError: there is no cluster at the address, or it does not let us in.
    """
    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {
        "log_to_driver": config.verbose,
        "logging_level": logging.INFO if config.verbose else logging.ERROR,
        "runtime_env": {"env_vars": _worker_environment()},
    }
    if address:
        options["address"] = address
    else:
        options |= {"include_dashboard": True, "num_cpus": config.num_cpus, "_temp_dir": config.temp_dir}
        if config.object_store_gb:
            options["object_store_memory"] = int(config.object_store_gb * 2**30)
    _connect(options)
    interrupt_on_sigterm()  # Ray has just put its own handler there
    if not config.verbose:
        quiet_ray()
    try:
        yield
    finally:
        ray.shutdown()


def _worker_environment() -> dict[str, str]:
    """Our switches for Ray's workers, without those that the submitted job sets itself: Ray refuses to merge them."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    given = ((job.get("runtime_env") or {}).get("env_vars")) or {}
    return {name: os.environ[name] for name in ENVIRONMENT if name not in given}


def _connect(options: dict[str, Any]) -> None:
    try:
        ray.init(**options)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        where = options.get("address", "this machine")
        raise ConfigError(
            f"No Ray cluster can be joined at {where}: {error} Check cluster.address and RAY_ADDRESS (and "
            f"RAY_AUTH_MODE with its token); unset both to start a cluster on this machine."
        ) from error


def interrupt_on_sigterm() -> None:
    """Let SIGTERM, which ``ray job stop`` and schedulers send, end a job as Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def quiet_ray() -> None:
    """Silence Ray's libraries below errors; ``cluster.verbose=true`` leaves them alone."""
    context = ray.data.DataContext.get_current()  # imports ray.data, which sets its own log levels
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def cause(error: BaseException) -> BaseException:
    """The user's own error inside what Ray wrapped around it: a `BoomError` if there is one, else the wrapped error.

    Ray's wrapper of a task's error is also an instance of that error's class, with a traceback as its text, so wrappers
    are never returned when they hold what they wrap.
    """
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        current = waiting.pop(0)
        if current in seen:
            continue
        inside = _wrapped(current)
        if isinstance(current, BoomError) and not inside:
            return current
        seen.append(current)
        chained = [current.__cause__, None if current.__suppress_context__ else current.__context__]
        waiting[:0] = [*inside, *(one for one in chained if one is not None)]
    own = error
    while inside := _wrapped(own):
        own = inside[0]
    return own


def _wrapped(error: BaseException) -> list[BaseException]:
    """What an error of Ray's holds: the cause of a task's error, the failures of a training group's workers."""
    if isinstance(error, ray.exceptions.RayError):
        found = [getattr(error, "cause", None)]
    else:
        failures = getattr(error, "worker_failures", None)
        found = [failures[rank] for rank in sorted(failures)] if isinstance(failures, dict) else []
    return [one for one in found if isinstance(one, BaseException)]


@contextlib.contextmanager
def event_queue(report: Report, interval_s: float = 0.5) -> Iterator[Queue]:
    """A queue that Ray workers put `Event` objects on; a thread hands each to ``report`` until the block ends."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})  # no other node's death may take it
    stop = threading.Event()

    def drain() -> None:
        while True:
            last = stop.is_set()
            with contextlib.suppress(Empty, ray.exceptions.RayError):
                _hand_over(queue, report)
            if last:
                return
            stop.wait(interval_s)

    thread = threading.Thread(target=drain, name="events", daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        stop.set()
        thread.join(timeout=30)
        queue.shutdown(force=True)


def _hand_over(queue: Queue, report: Callable[[Event], None]) -> None:
    for event in queue.get_nowait_batch(queue.size()):
        try:
            report(event)
        except Exception:  # a listener's fault must not stop the thread that all other events need
            log.exception("The event %s was not reported.", event)


def nodes_resources(wait_s: float = 0.0) -> list[dict[str, float]]:
    """CPU, GPU and memory_gb (GiB) of every living node; waits up to ``wait_s`` for one that is still joining."""
    deadline = time.monotonic() + wait_s
    while True:
        found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any("CPU" in node for node in found) or time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    return [
        {"CPU": node.get("CPU", 0.0), "GPU": node.get("GPU", 0.0), "memory_gb": node.get("memory", 0.0) / 2**30}
        for node in found
    ]


def room(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """How many processes of that size fit at once; each must fit on one node whole."""
    need = {"CPU": cpus, "GPU": gpus}
    return sum(min(int(node[name] / amount + 1e-9) for name, amount in need.items() if amount) for node in nodes)
