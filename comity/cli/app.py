"""The command itself: what commands there are, how they end, what errors say.

A command's module is loaded when its command is typed; those of all commands only for what speaks
of all: the help, and guesses at what was meant.

An error is one sentence of what happened and one of what to do; tracebacks only with ``--debug``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from types import MappingProxyType
from typing import Final, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import UnknownCommandError, UnusedCliTokensError

from comity.cli.options import UsageError, examples
from comity.cli.streams import abandon, abandon_unwritten, prepare, write_json
from comity.errors import (
    DraftError,
    KeyUnusableError,
    NotReachableError,
    RequestError,
    UndecidedError,
)
from comity.files import advice
from consensus.errors import ComityError, DecodeError, KeyFileError
from consensus.protocol import Status
from consensus.release import VERSION

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130
MALFORMED_HINT: Final = (
    "a name, an id or a number in the command is empty, too long or beyond what a network takes"
)
DAMAGED_HINT: Final = "it is damaged, or something else than was expected: get it again"

_BAD_INPUT_CODES: Final = (
    "BACKUP",
    "BAD_CONFIG",
    "DATA_ACCESS",
    "KEY_ACCESS",
    "KEY_STORE",
    "NOT_AUDITABLE",
    "NO_DATA",
    "SNAPSHOT",
    "SOURCE",
)
"""Of errors of ``node`` and of audits, which only their commands load."""

_BAD_INPUT: Final = (DraftError, KeyUnusableError, KeyFileError, DecodeError)

app = App(
    name="comity",
    help="Act on records that agencies share, and check what the network says.",
    help_epilogue="Exit status: 0 done, 1 refused, invalid or absent, 2 usage or bad input, "
    "3 no node reachable.\n\nComity finds the network by --genesis or COMITY_GENESIS and signs "
    "with the key of --key or COMITY_KEY_FILE. `comity COMMAND --help` has examples.",
    version=f"comity {VERSION}",
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=False),
)

_GROUPS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "network": ("network", "ceremony", "members", "admitting", "observing"),
        "node": ("node", "backup", "inspecting"),
        "signer": ("signer",),
        "keys": ("keys",),
        "rules": ("rules", "rule_changes", "rule_diff", "rule_tests"),
        "snapshot": ("snapshots",),
        "feed": ("feed",),
    }
)
"""Commands that have commands of their own: the module of the group, and those that add to it."""

_MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "acts": "submit",
        "reversal": "reverse",
        "circulars": "cosign send",
        "reads": "get list holds decision decisions statements status committee",
        "people": "authority access reads",
        "asking": "simulate requirements",
        "proposals": "propose pending proposal proposals approve object withdraw redraft",
        "disclosing": "disclose disclosed disclosures",
        "history": "history",
        "reviews": "reviews review",
        "sealing": "erase",
        "audit": "audit",
        "evidence": "bundle receipt",
        "verifying": "verify",
        "statement": "statement",
        "devnet": "devnet",
    }
)
"""Modules, and the commands that each has in its ``COMMANDS``."""

_HOME: Final = {word: module for module, words in _MODULES.items() for word in words.split()}


def whole() -> App:
    """Return the command with all that it has."""
    for word in (*_GROUPS, *_HOME):
        _load(word)
    return app


def _load(word: str) -> None:
    """Make a command known, with the others of its module."""
    if word in app:
        return
    if word in _GROUPS:
        group, *_ = [import_module(f"comity.cli.{name}") for name in _GROUPS[word]]
        app.command(group.app)
        return
    for command, end_of_help in import_module(f"comity.cli.{_HOME[word]}").COMMANDS:
        app.command(command, name=command.__name__.rstrip("_"), help_epilogue=end_of_help)


@app.command(
    help_epilogue=examples(
        "comity completion bash >> ~/.bash_completion",
        "comity completion fish > ~/.config/fish/completions/comity.fish",
    )
)
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completion script of a shell.

    Args:
        shell: bash, zsh or fish.
    """
    print(whole().generate_completion(shell=shell))


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line; return its exit status."""
    debug = "--debug" in arguments
    as_json = "--json" in arguments
    try:
        word = arguments[0] if arguments else ""
        if word in _GROUPS or word in _HOME:
            _load(word)
        elif word != "--version":
            whole()
        status = app(
            list(arguments), exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
    except BaseException as error:
        if debug and not isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return _failed(_single(error), as_json, arguments)
    return status if isinstance(status, int) else DONE


def _single(error: BaseException) -> BaseException:
    """Return the error itself where it came alone in groups of concurrent tasks."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _failed(error: BaseException, as_json: bool, arguments: Sequence[str]) -> int:
    match error:
        case KeyboardInterrupt():
            return INTERRUPTED
        case SystemExit():
            raise error
        case BrokenPipeError():
            abandon(sys.stdout)
            return DONE  # whoever read the output has seen enough
        case CycloptsError():
            what, hint = _usage(error)
            return _say("USAGE", what, hint, USAGE, as_json)
        case ComityError():
            hint = error.hint
            if hint == DecodeError.advice:  # is for who writes such bytes
                hint = DAMAGED_HINT if isinstance(error, DecodeError) else MALFORMED_HINT
            if hint == UsageError.advice:
                hint = f"`{_command(arguments)} --help` has examples"
            code = error.reason if isinstance(error, RequestError) else error.code
            return _say(code, error.message, hint, status_of(error), as_json)
        case OSError():
            said = error.strerror or str(error)
            what = f"{error.filename}: {said}" if error.filename else f"cannot go on: {said}"
            return _say("FILE", what, advice(error), USAGE, as_json)
        case UnicodeEncodeError() if any(map(_is_no_text, arguments)):
            what = "a word of the command is not text in UTF-8"
            return _say("USAGE", what, "write names and values in UTF-8", USAGE, as_json)
        case _:
            what = f"an error of this program: {type(error).__name__}: {error}"
            hint = "run it again with --debug and report what it prints"
            return _say("INTERNAL", what, hint, REFUSED, as_json)


def _is_no_text(word: str) -> bool:
    """Return whether a word of the command line had bytes that are no UTF-8 (PEP 383)."""
    return any("\udc80" <= each <= "\udcff" for each in word)


def status_of(error: ComityError) -> int:
    """Return the exit status of an error."""
    if isinstance(error, NotReachableError | UndecidedError):
        return UNREACHABLE
    if isinstance(error, _BAD_INPUT) or _is_malformed(error):
        return USAGE
    return USAGE if error.code in _BAD_INPUT_CODES else REFUSED


def _is_malformed(error: ComityError) -> bool:
    """Return whether a node could not read what was asked: the commands' own words are in order."""
    return isinstance(error, RequestError) and error.status == Status.MALFORMED


def _command(arguments: Sequence[str]) -> str:
    """Return the command that a command line begins with."""
    chain, _, _ = app.parse_commands(list(arguments))
    return " ".join(["comity", *chain])


def _usage(error: CycloptsError) -> tuple[str, str]:
    """Return what is wrong with a command line, and where to look."""
    command = " ".join(["comity", *(error.command_chain or ())])
    words = " ".join(error.unused_tokens or ())
    match error:
        case UnknownCommandError():
            said, _, rest = str(error).partition(". ")
            guess = rest.partition("Available")[0].strip()
            what = f"there is no command {words.split()[0]!r}" if words else said
            return f"{what}. {guess}".removesuffix(". "), f"`{command} --help` lists the commands"
        case UnusedCliTokensError():
            return f"{words!r} is more than was expected", f"`{command} --help` shows what is"
        case _:
            return str(error), f"`{command} --help` explains it"


def _say(code: str, what: str, hint: str, status: int, as_json: bool) -> int:
    if as_json:
        with suppress(OSError):  # else it is said on standard error
            write_json({"error": what, "code": code, "hint": hint, "status": status})
            return status
    with suppress(OSError):  # else the status tells
        _tell(what, hint)
    abandon_unwritten()
    return status


def _tell(what: str, hint: str) -> None:
    from rich.text import Text

    from comity.cli.show import err

    console = err()
    console.print(Text.assemble(("error: ", "bold red"), _sentence(what)), soft_wrap=True)
    if hint:
        console.print(Text.assemble(("hint:  ", "bold"), _sentence(hint)), soft_wrap=True)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?:" else f"{text}."


def main() -> None:
    """Run the ``comity`` command and exit."""
    prepare()
    sys.exit(run(sys.argv[1:]))
