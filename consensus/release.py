"""The version of this software: in ``comity --version``, in a node's status and metrics, in files
that say who made them. Never in anything that all must agree on."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
