from __future__ import annotations

import json

import pytest

from smlt.core.backend import CheckResult

FAILURE = CheckResult("quota", "fail", "no functions left", "ask for more")


def test_the_local_backend_passes(main):
    code, out, _ = main("check")
    assert code == 0
    assert any(line.startswith("pass") and "cores" in line for line in out.splitlines())


def test_as_json(main):
    code, out, _ = main("check", "-b", "local", "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert document["backend"] == "local"
    assert {check["status"] for check in document["checks"]} <= {"pass", "fail", "skipped"}


@pytest.mark.parametrize(("cores", "code"), [(2, 1), (None, 4)])
def test_a_failure_says_how_to_mend_it(main, monkeypatch, cores, code):
    backend = "smlt.backends.local.backend"
    monkeypatch.setattr(f"{backend}.LocalBackend.check", lambda self: [FAILURE])
    monkeypatch.setattr(f"{backend}.cores", lambda: cores)
    found, out, _ = main("check")
    assert found == code
    assert out.split() == ["fail", "quota", "no", "functions", "left", "mend:", "ask", "for", "more"]


def test_an_unknown_backend(main):
    code, _, err = main("check", "-b", "loca")
    assert code == 2
    assert "no backend is called 'loca' (did you mean 'local'?)" in err
