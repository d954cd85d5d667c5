"""Every method is complete: parameters, description, source, docstrings, and tests that name it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from boom_ray.config.methods import PARAMETERS
from boom_ray.merging.methods.registry import METHODS

TESTS = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")}
NEEDS = {
    *("gram", "magnitudes", "model_gram", "model_magnitudes"),
    *("fisher", "activations", "scores", "probe"),
}


def test_every_method_has_parameters_and_every_parameter_a_method() -> None:
    assert METHODS.keys() == PARAMETERS.keys()
    assert all(name == method.name for name, method in METHODS.items())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name: str) -> None:
    method = METHODS[name]
    for text in (method.summary, method.formula, method.source, method.cost, method.use):
        assert len(text) > 3
    assert method.summary.endswith(".") and re.search(r"\d{4}|mergekit", method.source)
    assert method.least >= 1 and (method.most is None or method.most >= method.least)
    defaults = PARAMETERS[name].model_validate({}).model_dump()
    assert method.needs_for(defaults) <= NEEDS
    for field in PARAMETERS[name].model_fields.values():
        assert field.description


@pytest.mark.parametrize("name", METHODS)
def test_the_code_of_a_method_names_its_source(name: str) -> None:
    method = METHODS[name]
    module = inspect.getmodule(method.rule or method.prepare)
    assert module is not None
    text = (module.__doc__ or "") + (method.rule.__doc__ or "" if method.rule else "") + (method.prepare.__doc__ or "")
    assert "Source" in inspect.getsource(module) and len(text) > 200


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_tested_by_name(name: str) -> None:
    found = [
        file
        for file, text in TESTS.items()
        if re.search(rf"(?<![a-z]){name}(?![a-z])", text) and file != Path(__file__).name
    ]
    assert found, f"no test in {Path(__file__).parent} names {name}"
