"""What can go wrong for a client, in one tree below ``consensus.errors.ComityError``.

    ComityError
    ├── ClientError                  something of this program or of the way to the nodes
    │   ├── NotReachableError        no node could be reached, or all are busy or behind
    │   │   └── UnknownNodeError     somebody listens there, not the node that was expected
    │   ├── OtherVersionError        no node speaks this release's version of the protocol
    │   ├── UndecidedError           sent, and not known to be decided: submit the same bytes again
    │   ├── RequestError             a node answered with an error; knows status and code
    │   │   └── AbsentError          what was asked for is proved not to be there
    │   ├── KeyUnusableError         no key, or one that cannot be used here
    │   ├── DraftError               what was asked for cannot be written as a transaction
    │   │   └── FileError            a file or folder that a command cannot read or write
    │   ├── MovedError               a list changed between two pages of it
    │   ├── ClosedError              a blocking client that is closed
    │   └── WaitsForItselfError      a blocking client called in its own thread
    └── VerificationError
        ├── StaleAnswerError         older than what this client has already seen certified
        └── ForkError                two certified statements of one height: stop and report

A certified refusal is not an error: it is an outcome (``results.Decision``).
"""

from __future__ import annotations

from consensus.answers import Problem
from consensus.errors import ComityError, VerificationError
from consensus.protocol import Status
from consensus.release import ADVICE


class ClientError(ComityError):
    """Something of this program, its files, or the way to the nodes."""

    code = "CLIENT"


class NotReachableError(ClientError):
    """No node answered in time."""

    code = "NOT_REACHABLE"
    advice = (
        "check that the nodes run, that their client ports can be reached from here, "
        "and that the genesis file is theirs"
    )


class UnknownNodeError(NotReachableError):
    """Whoever listens at a node's address shows a certificate that the committee does not name.

    The newest committee that could be learned was asked for already.
    """

    advice = (
        "its node key was exchanged and no node that answers tells of it, or another machine "
        "listens there, or the genesis file is another network's: name another member beside it "
        "(--server NAME), or leave --server out"
    )


class OtherVersionError(ClientError):
    """A node speaks another version of the client protocol."""

    code = "OTHER_VERSION"
    advice = ADVICE


class UndecidedError(ClientError):
    """A submission was sent and its decision did not come in time. ``txid`` names it.

    It may still take effect. Submitting the same bytes again is safe: it can be decided only once.
    """

    code = "UNDECIDED"
    advice = "ask for its decision, or submit the same bytes again: it is decided only once"

    def __init__(self, message: str, *, txid: bytes = b"") -> None:
        super().__init__(message)
        self.txid = txid


class RequestError(ClientError):
    """A node answered with an error. One node said so; nothing certifies it."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(problem.message, hint=problem.hint)
        self.status = status
        self.problem = problem
        self.reason = problem.code

    @property
    def elsewhere(self) -> bool:
        """Whether another node, or the same one later, may well answer otherwise."""
        return self.status in (Status.BUSY, Status.UNAVAILABLE)


class AbsentError(RequestError):
    """What was asked for, or is to be acted on, is not there, as is proved: ``NOT_FOUND``."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(Status.NOT_FOUND, Problem(Status.NOT_FOUND.name, message, hint))


class KeyUnusableError(ClientError):
    """There is no key, or it cannot be used."""

    code = "KEY_UNUSABLE"
    advice = "make one with `comity keys new`, or name its file with --key or COMITY_KEY_FILE"


class DraftError(ClientError):
    """What was asked for cannot be written as a transaction."""

    code = "BAD_DRAFT"
    advice = "`comity rules show DOMAIN` lists actions and their inputs"


class FileError(DraftError):
    """A file or a folder cannot be read or written; nothing is left half-written."""

    code = "FILE"
    advice = "check the path and its permissions"


class MovedError(ClientError):
    """A list changed between two pages: together they are not what it was at any height."""

    code = "MOVED"
    advice = "begin again with its first page"


class ClosedError(ClientError):
    """A blocking client is closed, or was closed while a call was under way."""

    code = "CLOSED"
    advice = "open a new one with BlockingClient.connect"


class WaitsForItselfError(ClientError):
    """A blocking client was called in its own thread, which would wait for itself for ever."""

    code = "WAITS_FOR_ITSELF"
    advice = "call it in another thread; functions that run in its thread, as dial, are async"


class StaleAnswerError(VerificationError):
    """An answer rests on an older state than one that this client has already seen certified."""

    code = "STALE_ANSWER"
    advice = "ask another node; this one is behind, or hides what is new"


class ForkError(VerificationError):
    """Two different certified statements of one height: more than f validators are faulty."""

    code = "FORK"
    advice = "stop relying on this network, keep both certificates and tell every agency"
