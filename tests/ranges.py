"""Ranges as people give them to commands: ``17`` or ``0..99``, both ends included."""

from __future__ import annotations

import argparse


def numbers(text: str) -> range:
    """Return the numbers that ``text`` names.

    Raises:
        ArgumentTypeError, ValueError: it is no range; argparse tells the user.
    """
    first, _, last = text.partition("..")
    low = int(first)
    high = int(last or first)
    if high < low:
        raise argparse.ArgumentTypeError("the first number comes after the last")
    return range(low, high + 1)
