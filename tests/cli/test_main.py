"""The wall: every error is a message and an exit code; `smlt --help` and `import smlt` load nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import smlt
from smlt.core.errors import CloudError, ConfigError, LimitReached
from tests.cli.conftest import SMLT

HEAVY = {"torch", "tensorflow", "keras", "jax", "optuna", "lithops", "obstore", "rich", "pydantic", "numpy", "msgpack"}


def modules_after(code: str) -> set[str]:
    """What a fresh Python has imported once it has run this."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}; import sys; print(*sys.modules, file=sys.stderr)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stderr.split())


def test_import_smlt_imports_nothing_else():
    found = modules_after("import smlt")
    assert not found & (HEAVY | {"typer", "pluggy", "smlt.core.job", "smlt.api"})


def test_help_imports_nothing_heavy():
    by_typer = {"pydantic"}  # newer ones read a command's flags with it
    assert not modules_after("from smlt.cli.main import main; main(['--help'])") & HEAVY
    assert not modules_after("from smlt.cli.main import main; main(['train', '--help'])") & (HEAVY - by_typer)


@pytest.mark.parametrize("name", [name for name in smlt.__all__ if name != "__version__"])
def test_every_public_name_is_there(name):
    assert getattr(smlt, name).__name__ == name
    assert name in dir(smlt)


def test_an_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        smlt.trian  # noqa: B018


def test_version(main):
    assert main("--version") == (0, f"smlt {smlt.__version__}\n", "")


@pytest.mark.parametrize("verb", ["init", "train", "status", "logs", "runs", "check", "backends", "config"])
def test_every_verb_explains_itself(main, verb):
    code, out, _ = main(verb, "--help")
    assert code == 0
    assert f"Usage: smlt {verb}" in out


@pytest.mark.parametrize("arguments", [["trian"], ["train", "--workres", "2"], ["runs", "-o", "xml"], ["init"]])
def test_usage_errors_exit_2(main, arguments):
    code, out, err = main(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


@pytest.fixture
def failing(main, monkeypatch):
    """Run a command that raises this."""

    def failing(error: Exception, *arguments: str) -> tuple[int, str, str]:
        def load() -> None:
            raise error

        monkeypatch.setattr("smlt.core.plugins.load_registry", load)
        return main("backends", *arguments)

    return failing


@pytest.mark.parametrize(
    ("kind", "code"), [(ConfigError, 2), (LimitReached, 3), (CloudError, 4)]
)  # fmt: skip
def test_our_errors_are_a_message_with_a_hint_and_their_exit_code(failing, kind, code):
    assert failing(kind("it is so", "do this")) == (code, "", "error: it is so\n  hint: do this\n")


def test_other_errors_are_one_line(failing):
    code, out, err = failing(ValueError("odd"))
    assert (code, out) == (1, "")
    assert err == "error: unexpected ValueError: odd; run again with --debug for the traceback\n"


def test_debug_shows_the_traceback(failing, monkeypatch):
    _, _, err = failing(ValueError("odd"), "--debug")
    assert err.startswith("Traceback")
    assert err.endswith("error: unexpected ValueError: odd\n")
    monkeypatch.setenv("SMLT_DEBUG", "1")
    assert failing(ConfigError("odd"))[2].startswith("Traceback")
    monkeypatch.setenv("SMLT_DEBUG", "0")
    assert failing(ConfigError("odd"))[2] == "error: odd\n"


@pytest.mark.parametrize("arguments", [["config", "schema"], ["runs"]])
def test_the_reader_of_the_output_may_leave(folder, arguments):
    with subprocess.Popen([SMLT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 1


def test_backends_are_listed_with_their_state(main):
    code, out, _ = main("backends")
    assert code == 0
    assert "local" in out
    assert "fixed" in out


def test_what_cannot_be_used_is_listed_with_the_reason(main, monkeypatch):
    from smlt.core.plugins import Entry, LeftOut, Registry

    registry = Registry(left_out=[LeftOut("acme.plugin", "ImportError: no acme")])
    registry.entries["backends"] = {"far": Entry("smlt_no_such_module:Far", extra="far"), "odd": Entry("smlt:Odd")}
    registry.owners = {("backends", name): "acme.plugin" for name in registry.entries["backends"]}
    monkeypatch.setattr("smlt.core.plugins.load_registry", lambda: registry)
    code, out, _ = main("backends")
    assert code == 0
    assert "needs: pip install 'smlt[far]'" in out
    assert "smlt has no Odd" in out
    assert "ImportError: no acme" in out
