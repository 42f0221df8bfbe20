"""The deterministic executor: permissioned transactions under rule sets that are data.

``transaction`` and ``batch`` the formats; ``rules``, ``expr``, ``model`` the rule sets;
``executor`` the checks in their order, ``kernel`` the built-in actions. Nothing here knows what a
benefit is.
"""
