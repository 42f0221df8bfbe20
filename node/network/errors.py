"""What can go wrong on a connection.

ComityError
├── RemoteProtocolError
│   ├── FrameError               the other side's framing is wrong
│   │   ├── FrameTooLarge        longer than its kind allows
│   │   ├── FrameEmpty           a frame without a payload
│   │   ├── FrameTruncated       the stream ended inside a frame
│   │   └── SlowSender           a frame, or the next one, took too long
│   └── LinkRefused              one side declined the link, and says why
├── VerificationError
│   └── WrongPeer                the certificate is not the expected member's
├── ConnectionLost               the transport failed; nobody need be at fault
└── CertificateUnusable          our own key, certificate or committee file does not fit
"""

from __future__ import annotations

from typing import Final

from consensus.errors import ComityError, RemoteProtocolError, VerificationError


class FrameError(RemoteProtocolError):
    """The other side's framing is wrong; the stream cannot be read any further."""

    code = "FRAME"


class FrameTooLarge(FrameError):
    """A frame is longer than allowed. Nothing was allocated for it."""

    code = "FRAME_TOO_LARGE"
    advice = "split the request; the limit is in docs/protocol"


class FrameEmpty(FrameError):
    """A frame has no payload."""

    code = "FRAME_EMPTY"


class FrameTruncated(FrameError):
    """The stream ended inside a frame."""

    code = "FRAME_TRUNCATED"


class SlowSender(FrameError):
    """The first byte of a frame, or the rest of it, did not come in time."""

    code = "SLOW_SENDER"
    advice = "check the network between the two machines, and the load of the sender"


class UnexpectedFrame(RemoteProtocolError):
    """A frame of an unknown kind, or of a kind that has no place at this point."""

    code = "UNEXPECTED_FRAME"


class LinkRefused(RemoteProtocolError):
    """One side declined the link: another chain, version, direction, or a pause after a fault.

    ``reason`` is the code of ``wire.Refusal`` that travels to the other side; ``by_peer`` says
    which side declined.
    """

    code = "LINK_REFUSED"
    advice = "compare the genesis hashes and software versions of the two nodes"

    def __init__(self, message: str, *, reason: int, by_peer: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.by_peer = by_peer


class WrongPeer(VerificationError):
    """The other side's certificate is not that of the member expected."""

    code = "WRONG_PEER"
    advice = "check the address in the configuration, and the member's certificate in the committee"


class ConnectionLost(ComityError):
    """The transport failed, or the other side stopped reading."""

    code = "CONNECTION_LOST"
    advice = "the link is made again by itself; check the network if it keeps failing"


class CertificateUnusable(ComityError):
    """A certificate that we hold cannot be used: malformed, not Ed25519, or not of our key."""

    code = "CERTIFICATE_UNUSABLE"
    advice = "compare the node key, its certificate and the committee with `comity node check`"


LINK_ERRORS: Final = (RemoteProtocolError, VerificationError, ConnectionLost, CertificateUnusable)
"""What a peer or the network can cause. Everything else is our own bug and is not caught."""
