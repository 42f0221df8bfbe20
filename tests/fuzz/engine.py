"""The process that fuzzes one target: atheris (libFuzzer) with the product's code instrumented.

``python -m tests.fuzz.engine TARGET libFuzzer's arguments``. An input that escapes the documented
errors, takes longer than the time-out or more memory than the limit stops the process, and lies
where ``-artifact_prefix`` says.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(
    include=["consensus", "node", "comity"], enable_loader_override=False
):
    from tests.fuzz.mutate import mutator
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer ends; it ends the process itself."""
    target = TARGETS[sys.argv[1]]

    def run(data: bytes) -> None:
        target.feed(data)

    mutate = mutator(target, lambda data, bytes_max: bytes(atheris.Mutate(data, bytes_max)))
    atheris.Setup([sys.argv[0], *sys.argv[2:]], run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
