"""``python -m comity.cli``: the same as the ``comity`` command."""

from comity.cli.app import main

main()
