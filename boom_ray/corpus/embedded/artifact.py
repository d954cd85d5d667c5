"""The embedded text as an artifact of the store."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boom_ray.config.corpus import EmbeddedConfig
from boom_ray.corpus.embedded.forms import write_rows
from boom_ray.corpus.embedded.parse import Function, package_of
from boom_ray.corpus.embedded.read import read_sources
from boom_ray.corpus.embedded.sets import Sets, make_sets
from boom_ray.corpus.embedded.sources import Package, Source, find_package, package_files
from boom_ray.errors import DataError
from boom_ray.events import Event, Report, silent
from boom_ray.store import Artifact, Draft, Store

VERSION = 6  # raise it when the same packages and configuration give other files
Finder = Callable[[str], Package | None]


@dataclass(frozen=True)
class Installed:
    """The packages of a configuration that are installed here, and the names of those that are not."""

    in_domain: tuple[Package, ...]
    out_of_domain: tuple[Package, ...]
    missing: tuple[str, ...]


def embedded_artifact(
    store: Store, config: EmbeddedConfig, report: Report = silent, find: Finder = find_package
) -> Artifact:
    """Training datasets and test sets made from the text of installed packages.

    The artifact holds ``train/<name>.jsonl`` and ``tests/<name>/``. It depends on the configuration and on the versions
    of Python and of the packages, and on nothing else.

    Args:
        store: where the artifact is kept.
        config: packages and sizes.
        report: told how far it is.
        find: how a package is found by its name; None for one that is not installed.

    Raises:
        DataError: no package of a group is installed, or they give no training row.
        StoreError: the store cannot be written.
    """
    installed = find_packages(config, find)
    inputs = {package.name: package.version for package in (*installed.in_domain, *installed.out_of_domain)}

    def build(draft: Draft) -> None:
        build_embedded(draft, config, installed, report)

    return store.materialize(
        "embedded", config.identity(), inputs | {"python": platform.python_version()}, build, version=VERSION
    )


def find_packages(config: EmbeddedConfig, find: Finder = find_package) -> Installed:
    """The configuration's packages that are installed.

    Raises:
        DataError: none of a group is.
    """
    groups: list[tuple[Package, ...]] = []
    missing: list[str] = []
    for group, names in (("in_domain", config.in_domain), ("out_of_domain", config.out_of_domain)):
        found = {name: find(name) for name in names}
        groups.append(tuple(package for package in found.values() if package is not None))
        missing += [name for name, package in found.items() if package is None]
        if not groups[-1]:
            raise DataError(
                f"corpus.embedded.{group} names {', '.join(names) or 'no package'}, and none is installed. Install one "
                f"of them (pip install boom-ray[demo] brings the default ones) or name others."
            )
    return Installed(groups[0], groups[1], tuple(missing))


def build_embedded(draft: Draft, config: EmbeddedConfig, installed: Installed, report: Report = silent) -> None:
    """Read the packages and write all sets below ``draft.path``; ``draft.figures`` gets the counts.

    Raises:
        DataError: no training row was found.
    """
    inside = _sources(installed.in_domain, config)
    outside = _sources(installed.out_of_domain, config)
    total = len(inside) + len(outside)
    report(Event("corpus", "embedded text", 0, total, note="reading source files"))
    records = read_sources([*inside, *outside])
    names = {package.name for package in installed.in_domain}
    sets = make_sets(
        [record for record in records if package_of(record.owner) in names],
        [record for record in records if package_of(record.owner) not in names],
        config,
    )
    counts, left_out = _write(draft.path, sets)
    if not any(name.startswith("train/") for name in counts):
        raise DataError(
            f"The packages {', '.join(sorted(names))} give no training example. Name more of them in "
            f"corpus.embedded.in_domain, or raise corpus.embedded.source_mb."
        )
    draft.figures |= {
        "packages": {package.name: package.version for package in (*installed.in_domain, *installed.out_of_domain)},
        "missing_packages": list(installed.missing),
        "source_files": total,
        "docstrings": sum(isinstance(record, Function) for record in records),
        "comments_and_messages": sum(not isinstance(record, Function) for record in records),
        "rows": counts,
        "left_out": left_out,
    }
    report(Event("corpus", "embedded text", total, total, figures={"rows": float(sum(counts.values()))}))


def _sources(packages: Sequence[Package], config: EmbeddedConfig) -> list[Source]:
    budget = int(config.source_mb * 1e6)
    return [source for package in packages for source in package_files(package, budget, config.seed)]


def _write(root: Path, sets: Sets) -> tuple[dict[str, int], list[str]]:
    """Write all sets but empty ones; rows per file, and the names of the sets left out because a file had no row."""
    counts: dict[str, int] = {}
    left_out: list[str] = []
    for name, rows in sets.train.items():
        if rows:
            counts[f"train/{name}.jsonl"] = len(rows)
            write_rows(root / "train" / f"{name}.jsonl", rows)
        else:
            left_out.append(f"train/{name}")
    for name, files in sets.tests.items():
        if not all(files.values()):
            left_out.append(f"tests/{name}")
            continue
        for file, rows in files.items():
            counts[f"tests/{name}/{file}"] = len(rows)
            write_rows(root / "tests" / name / file, rows)
    return counts, left_out
