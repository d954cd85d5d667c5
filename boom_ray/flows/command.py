"""What all jobs share: arguments, errors as plain sentences, exit codes, a clean end on Ctrl-C and SIGTERM."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from boom_ray import IMPORTED
from boom_ray.config import Section, load_config, to_yaml
from boom_ray.errors import BoomError
from boom_ray.runtime import cause, interrupt_on_sigterm

S = TypeVar("S", bound=Section)
INTERRUPTED = 130


def command(schema: type[S], flow: Callable[[S], int], description: str, argv: Sequence[str] | None = None) -> int:
    """Read the configuration, call the flow, and turn what happens into an exit code.

    Args:
        schema: the configuration's model.
        flow: what to run; returns an exit code.
        description: shown by ``--help``.
        argv: arguments; None for the process's own.

    Returns:
        The flow's code; 2 for a wrong configuration, 1 for other errors a user can act on, 130 when interrupted.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="YAML file, see conf/")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="values that replace those of the file")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and end")
    parser.add_argument("--verbose", action="store_true", help="show what Ray prints (cluster.verbose=true)")
    if "dry_run" in schema.model_fields:
        parser.add_argument("--dry-run", action="store_true", help="print what would be done and end (dry_run=true)")
    if "compare" in schema.model_fields:
        parser.add_argument("--compare", action="store_true", help="intervals, tests and pictures (compare=true)")
    if "resume" in schema.model_fields:
        parser.add_argument("--resume", action="store_true", help="go on with an earlier part, which there must be")
    arguments = parser.parse_intermixed_args(argv)  # switches may stand between overrides
    switches = {
        "cluster.verbose=true": arguments.verbose,
        "dry_run=true": getattr(arguments, "dry_run", False),
        "compare=true": getattr(arguments, "compare", False),
        "resume=true": getattr(arguments, "resume", False),
    }
    overrides = [*arguments.overrides, *(override for override, wanted in switches.items() if wanted)]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        config = load_config(schema, arguments.config, overrides)
        if arguments.print_config:
            sys.stdout.write(to_yaml(config))
            return 0
        interrupt_on_sigterm()
        return flow(config)
    except Exception as error:
        own = cause(error)  # the user's error may come wrapped from a Ray worker
        if not isinstance(own, BoomError):
            raise  # a bug of ours: its traceback is wanted
        sys.stdout.flush()
        sys.stderr.write(f"error: {own}\n")
        return own.exit_code
    except KeyboardInterrupt:
        sys.stdout.flush()
        sys.stderr.write(
            "\nInterrupted. Finished stages and members are in the store, running members up to their last checkpoint. "
            "Run the same command again to continue.\n"
        )
        return INTERRUPTED


def main(schema: type[S], flow: Callable[..., int], description: str) -> None:
    """Run `command` and end the process, without waiting for threads that an interrupt left behind.

    The flow is also told when the process began (``started``): people wait for its imports too.
    """
    code = command(schema, functools.partial(flow, started=IMPORTED), description)
    sys.stdout.flush()
    sys.stderr.flush()
    if code == INTERRUPTED:
        os._exit(code)
    sys.exit(code)
