"""The alerts against a real network: ``prometheus`` scrapes it, ``scenes`` break it.

``scripts/watch`` runs it all. Not here: promtool's tests of the rules (``deploy/prometheus``).
"""
