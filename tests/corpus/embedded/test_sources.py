from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from boom_ray.corpus.embedded.read import read_sources
from boom_ray.corpus.embedded.sources import Package, Source, find_package, package_files
from boom_ray.errors import DataError


def test_installed_packages_are_found_under_their_import_name():
    found = find_package("sklearn")
    assert found is not None
    assert found.version == version("scikit-learn")
    assert (found.root / "__init__.py").exists()


def test_the_standard_library():
    found = find_package("stdlib")
    assert found is not None
    assert found.version == platform.python_version()
    assert found.root / "json" == Path(json.__file__).parent


@pytest.mark.parametrize("name", ["no_such_package_here", "six", "not-a-name", "a.b"])
def test_missing_packages_and_single_modules(name):
    assert find_package(name) is None


def test_test_folders_and_tiny_files_are_left_out(packages):
    modules = [source.module for source in package_files(packages["alpha"], 10**9, 0)]
    assert modules == [f"alpha.part{index}" for index in range(6)]


def test_the_budget_is_kept_by_a_choice_that_depends_on_names_only(packages, tmp_path):
    package = packages["alpha"]
    size = (package.root / "part0.py").stat().st_size
    chosen = [source.module for source in package_files(package, int(3.5 * size), 0)]
    assert len(chosen) == 3
    elsewhere = tmp_path / "other" / "alpha"
    elsewhere.mkdir(parents=True)
    for path in sorted(package.root.glob("*.py"), reverse=True):
        (elsewhere / path.name).write_bytes(path.read_bytes())
    again = package_files(Package("alpha", "1.0", elsewhere), int(3.5 * size), 0)
    assert [source.module for source in again] == chosen
    others = {tuple(source.module for source in package_files(package, int(3.5 * size), seed)) for seed in range(8)}
    assert len(others) > 1


def test_readers_in_other_processes_give_the_same_records(packages):
    sources = [source for package in packages.values() for source in package_files(package, 10**9, 0)]
    alone = read_sources(sources, readers=1)
    assert len(alone) == 3 * 6 * 20 * 3
    assert read_sources(sources, readers=2) == alone


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.py"):
        read_sources([Source(tmp_path / "gone.py", "gone")])
