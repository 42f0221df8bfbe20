"""What can go wrong with a copy.

FeedSetupError       what was given cannot work: a file, a service, rights
CopyDamagedError     the copy is not what this feed wrote, or of another network
StoreDownError       the database cannot be reached
"""

from __future__ import annotations

from comity.errors import DraftError, NotReachableError
from consensus.errors import ComityError


class FeedSetupError(DraftError):
    """A feed cannot begin with what it was given."""

    code = "FEED_SETUP"
    advice = "docs/reporting.md shows how to set a feed up"


class CopyDamagedError(ComityError):
    """A copy was changed by somebody else, or is one of something else."""

    code = "COPY_DAMAGED"
    advice = "have it written anew, into an empty schema or folder"


class StoreDownError(NotReachableError):
    """A database cannot be reached; what was not written yet will be."""

    code = "DATABASE_DOWN"
    advice = "start it again, or look at its address"
