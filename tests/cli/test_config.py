"""`smlt config`: what is in force and where from; a schema that agrees with what is accepted."""

from __future__ import annotations

import json
import tomllib

import jsonschema
import pytest

from smlt.cli.config import schema_of
from smlt.core.plugins import load_registry


def test_every_setting_is_shown_with_its_origin(main, folder, monkeypatch):
    (folder / "smlt.toml").write_text('[job]\ntask = "task.py:A"\nparams = { a = "x" }\n[limits]\ndeadline = "90m"\n')
    monkeypatch.setenv("SMLT_WORKERS", "3")
    code, out, err = main("config", "show", "--origin", "--set", "backend.worker_threads=1")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert (code, err) == (0, "")
    assert rows["job.task"] == ['"task.py:A"', "smlt.toml"]
    assert rows["job.params.a"] == ['"x"', "smlt.toml"]
    assert rows["limits.deadline"] == ['"5400s"', "smlt.toml"]
    assert rows["workers.count"] == ["3", "SMLT_WORKERS"]
    assert rows["backend.worker_threads"] == ["1", "--set"]
    assert rows["backend.name"] == ['"local"', "default"]
    assert rows["job.steps"] == ["not", "set", "default"]


def test_it_shows_without_a_task_and_as_json(main):
    code, out, _ = main("config", "show", "-o", "json")
    assert code == 0
    assert json.loads(out)["job.task"] is None
    _, out, _ = main("config", "show", "-o", "json", "--origin")
    assert json.loads(out)["workers.max"] == {"value": 8, "origin": "default"}


def test_mistakes_are_told(main):
    code, out, err = main("config", "show", "--set", "job.epoch=1")
    assert (code, out) == (2, "")
    assert "--set: job.epoch: no such key (did you mean 'epochs'?)" in err


def test_what_is_for_another_backend_is_said(main, folder):
    (folder / "smlt.toml").write_text('[backend]\nname = "local"\nworker_threads = 1\n')
    code, out, err = main("config", "show", "--backend", "lithops")
    assert code == 0
    assert "backend.worker_threads       1" not in out
    assert err == "note: smlt.toml: backend.worker_threads is for another backend, not used with 'lithops'\n"


@pytest.fixture(scope="module")
def validator():
    schema = schema_of(load_registry())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_is_json_where_json_is_asked_for(main):
    assert main("config", "schema", "-o", "json") == main("config", "schema")


def test_the_schema_is_printed(main, validator):
    code, out, _ = main("config", "schema")
    assert code == 0
    assert json.loads(out) == validator.schema


@pytest.mark.parametrize(
    "text",
    [
        '[job]\ntask = "a.py:B"',
        '[job]\ntask = "a.py:B"\nglobal_batch = [{ from_epoch = 0, size = 3 }]\neval_every = "2epochs"',
        '[job]\ntask = "a.py:B"\n[limits]\ndeadline = "3h"\nbudget = 2\n[workers]\nmemory = "2GiB"\ncount = "auto"',
        '[job]\ntask = "a.py:B"\n[backend]\nfunction_time_limit = "20s"',
        '[job]\ntask = "a.py:B"\n[backend]\nname = "local"\nworker_threads = 2',
        '[job]\ntask = "a.py:B"\n[backend]\nname = "lithops"',
    ],
)
def test_the_schema_accepts_what_smlt_accepts(validator, text):
    validator.validate(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "[job]\nepochs = 1",
        '[job]\ntask = "a.py:B"\nepoch = 1',
        '[job]\ntask = "a.py:B"\nepochs = 0',
        '[job]\ntask = "a.py:B"\n[limit]\n',
        '[job]\ntask = "a.py:B"\n[backend]\nname = "loca"',
        '[job]\ntask = "a.py:B"\n[backend]\nworker_thread = 2',
        '[job]\ntask = "a.py:B"\n[backend]\nname = "lithops"\nworker_thread = 2',
    ],
)
def test_the_schema_refuses_what_smlt_refuses(validator, text):
    assert not validator.is_valid(tomllib.loads(text))
