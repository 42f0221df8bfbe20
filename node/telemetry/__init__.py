"""What operators see: ``metrics`` the catalogue, ``gauges`` what is read when somebody scrapes,
``health`` the HTTP door, ``logs`` the log lines.

Nothing here influences the node. No value of a record ever enters a metric or a log line.
"""
