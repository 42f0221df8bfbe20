"""Every error that leaves ``consensus``, in one tree.

    ComityError                      has a stable ``code``, a sentence and a hint
    ├── LocalProtocolError           our own bug; the node stops and keeps its data
    │   └── UnknownExecutorError     an executor that this release lacks: not guessed
    ├── RemoteProtocolError          somebody sent what the protocol forbids
    │   ├── DecodeError              bytes that are not the canonical form of the declared type
    │   └── CopyError                a private part that is not the one its body commits to
    ├── VerificationError            evidence that does not prove what it claims
    │   ├── SignatureError           a signature, or a key that may not be used
    │   ├── CertificateError         a quorum, timeout or commit certificate
    │   └── ProofError               a path into a tree
    ├── KeyFileError                 a key file that cannot be read
    │   └── PassphraseError          it is sealed, and the passphrase is missing or wrong
    └── RulesError                   a rule set or an expression; knows its place

Verification never returns ``bool``: ignoring its outcome must be impossible.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import ClassVar, Final, TypeVar

_Found = TypeVar("_Found")


class ComityError(Exception):
    """Root of the tree.

    Args:
        message: what happened, one sentence, without a full stop.
        hint: what the person can do about it; the class default serves when empty.
    """

    code: ClassVar[str] = "ERROR"
    advice: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.advice


class LocalProtocolError(ComityError):
    """An invariant of our own code is broken. Nothing may be signed after it."""

    code = "INVARIANT"
    advice = "stop the node, keep its data folder and report the last log lines"


class UnknownExecutorError(LocalProtocolError):
    """A block or decision is of an executor that this release does not have."""

    code = "UNKNOWN_EXECUTOR"
    advice = "install a release that has it, on the same data"

    def __init__(self, number: int, known: Sequence[int]) -> None:
        has = ", ".join(map(str, known))
        super().__init__(f"executor {number} is in force, and this release has {has}")
        self.number = number


class RemoteProtocolError(ComityError):
    """A peer or client broke the protocol."""

    code = "PROTOCOL"
    advice = "the sender runs other software or is faulty; its link is closed"


class DecodeError(RemoteProtocolError):
    """Bytes are not the canonical encoding of the declared type. ``path`` says where."""

    code = "MALFORMED"
    advice = "encode exactly as the CDDL under docs/protocol says"

    def __init__(self, message: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message, hint=hint)
        self.path = path
        self._reason = message

    def below(self, place: str) -> DecodeError:
        """Return the same error, found inside the item at ``place``."""
        return DecodeError(self._reason, path=place + self.path, hint=self.hint)


class CopyError(RemoteProtocolError):
    """A private part does not match its root: the copy is bad, the transaction may be good."""

    code = "BAD_COPY"
    advice = "fetch the private part from another node"


class VerificationError(ComityError):
    """Something that was offered as evidence does not hold."""

    code = "UNPROVED"
    advice = "do not use this data; ask another node"


class SignatureError(VerificationError):
    """A signature does not verify, or its key is weak."""

    code = "BAD_SIGNATURE"


class CertificateError(VerificationError):
    """A certificate has too few, unordered, foreign or wrong signatures."""

    code = "BAD_CERTIFICATE"


class ProofError(VerificationError):
    """A Merkle path is malformed or leads to another root."""

    code = "BAD_PROOF"


class KeyFileError(ComityError):
    """A key file is malformed, of another kind, or its parts contradict each other."""

    code = "BAD_KEY_FILE"
    advice = "check the path; a damaged key file can only be replaced by its backup"


class PassphraseError(KeyFileError):
    """The key is sealed, and the passphrase is missing or wrong."""

    code = "BAD_PASSPHRASE"
    advice = "give the passphrase that the key was sealed with"


class RulesError(ComityError):
    """A rule set or expression is refused. ``line`` is 1-based, 0 when unknown."""

    code = "BAD_RULES"
    advice = "mend the line and run `comity rules check` again"

    def __init__(self, message: str, *, where: str = "", line: int = 0, hint: str = "") -> None:
        prefix = ":".join(part for part in (where, str(line) if line else "") if part)
        super().__init__(f"{prefix}: {message}" if prefix else message, hint=hint)
        self.where = where
        self.line = line
        self._reason = message

    def again(self) -> RulesError:
        """Return the same error, to be raised or kept by those who keep one.

        An exception that was raised holds the frames it passed through, and all that they knew.
        """
        return RulesError(self._reason, where=self.where, line=self.line, hint=self.hint)


MISREAD: Final = (
    LocalProtocolError,
    RemoteProtocolError,
    VerificationError,
    RulesError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What reading a state may raise that no executor wrote, although a quorum signed it.

The executor trusts the rows that it reads, as it does everything that was checked. Whoever begins
with a state that was only certified to it takes these for what is wrong there.
"""


def invariant(condition: object, message: str) -> None:
    """Raise LocalProtocolError unless ``condition`` holds. Never optimised away."""
    if not condition:
        raise LocalProtocolError(message)


def present(found: _Found | None, message: str) -> _Found:
    """Return what was found; raise LocalProtocolError if it is None, which it never is."""
    if found is None:
        raise LocalProtocolError(message)
    return found
