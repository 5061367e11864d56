"""The `smlt` command: its verbs, and the wall at which every error becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from smlt._version import __version__
from smlt.cli import (
    attach,
    backends,
    bench,
    cancel,
    check,
    clean,
    compare,
    config,
    init,
    logs,
    plan,
    prices,
    profile,
    recipes,
    report,
    resume,
    runs,
    scale,
    serve_channel,
    simulate,
    status,
    sweep,
    train,
)
from smlt.core.errors import SmltError

app = typer.Typer(
    name="smlt",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.command("init")(init.init)
app.command("plan")(plan.plan)
app.command("compare")(compare.compare)
app.command("profile")(profile.profile)
app.command("train")(train.train)
app.command("sweep")(sweep.sweep)
app.command("resume")(resume.resume)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.command("report")(report.report)
app.command("runs")(runs.runs)
app.command("attach")(attach.attach)
app.command("scale")(scale.scale)
app.command("cancel")(cancel.cancel)
app.command("check")(check.check)
app.command("clean")(clean.clean)
app.command("build")(recipes.build)
app.command("backends")(backends.backends)
app.command("serve-channel")(serve_channel.serve_channel)
app.command("simulate")(simulate.simulate)
app.add_typer(recipes.cloud, name="cloud")
app.add_typer(config.app, name="config")
app.add_typer(prices.app, name="prices")
app.add_typer(bench.app, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smlt {__version__}")
        raise typer.Exit


@app.callback()
def smlt(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train PyTorch and TensorFlow models on serverless functions, under a deadline and a budget."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 ok, 1 job failed, 2 usage or configuration, 3 stopped by a limit, 4 cloud or credentials, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments or os.environ.get("SMLT_DEBUG", "") not in ("", "0")
    warnings.showwarning = _show_warning
    try:
        return _run(arguments)
    except SmltError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        hint = "" if debug else "; run again with --debug for the traceback"
        print(f"error: unexpected {type(error).__name__}: {error}{hint}", file=sys.stderr)
        return 1


def _run(arguments: Sequence[str]) -> int:
    code: Any = 0
    try:
        app(args=list(arguments), prog_name="smlt")
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    return code if isinstance(code, int) else int(bool(code))


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {message}", file=sys.stderr)
