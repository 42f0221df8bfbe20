"""The command itself: what commands there are, how they end, what errors say.

An error is one sentence of what happened and one of what to do; tracebacks only with ``--debug``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from cyclopts import App, CycloptsError
from rich.text import Text

from comity.cli import acts, devnet, keys, network, node, reads, rules
from comity.cli.show import err
from comity.errors import DraftError, KeyUnusableError, NotReachableError, UndecidedError
from consensus.errors import ComityError, DecodeError, KeyFileError

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130

_BAD_INPUT_CODES: Final = ("BAD_CONFIG", "KEY_ACCESS")
"""Of errors of ``node``, which is loaded only by the commands that run one."""

app = App(
    name="comity",
    help="Act on records that agencies share, and check what the network says.",
    version=lambda: f"comity {version('comity')}",
    help_format="plaintext",
)
for _part in (network, node, keys, rules):
    app.command(_part.app)
app.command(acts.submit)
for _command in (
    reads.get,
    reads.list_,
    reads.holds,
    reads.decision,
    reads.decisions,
    reads.statements,
    reads.status,
    reads.committee,
):
    app.command(_command, name=_command.__name__.rstrip("_"))
app.command(devnet.devnet)
app.register_install_completion_command(
    name="completion", help="Install completion for bash, zsh or fish."
)


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line; return its exit status."""
    debug = "--debug" in arguments
    as_json = "--json" in arguments
    try:
        status = app(
            list(arguments), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        if debug:
            raise
        return _say(_sentence(str(error)), "`comity --help` lists the commands", USAGE, as_json)
    except ComityError as error:
        if debug:
            raise
        return _say(error.message, error.hint, status_of(error), as_json)
    except OSError as error:
        if debug:
            raise
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _say(what, "check the path and its permissions", USAGE, as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        what = f"an error of this program: {type(error).__name__}: {error}"
        return _say(what, "run it again with --debug and report what it prints", REFUSED, as_json)
    return status if isinstance(status, int) else DONE


def status_of(error: ComityError) -> int:
    """Return the exit status of an error."""
    if isinstance(error, NotReachableError | UndecidedError):
        return UNREACHABLE
    if isinstance(error, DraftError | KeyUnusableError | KeyFileError | DecodeError):
        return USAGE
    return USAGE if error.code in _BAD_INPUT_CODES else REFUSED


def _say(what: str, hint: str, status: int, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": what, "hint": hint, "status": status}, ensure_ascii=False))
        return status
    console = err()
    console.print(Text.assemble(("error ", "bold red"), _sentence(what)))
    if hint:
        console.print(Text.assemble(("hint  ", "bold"), _sentence(hint)))
    return status


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?:" else f"{text}."


def main() -> None:
    """Run the ``comity`` command and exit."""
    sys.exit(run(sys.argv[1:]))
