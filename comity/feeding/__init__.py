"""Feeds: copies of what a key may read, in a database or in files, for reports and analysis.

    catalogue.py   kinds, account families and actions of all rule sets that were ever in force
    tables.py      which tables a copy has, whatever it is kept in
    project.py     from a verified height to rows
    following.py   from a height on, heights to whatever takes them
    postgres.py    into PostgreSQL             postgres_schema.py   its tables, as rules change
    parquet.py     into Parquet files          manifest.py          which files count
    checking.py    proves a copy against the network, by a path of its own
    check_postgres.py   check_parquet.py       what a copy holds, as the check reads it

A copy is written height by height, each whole or not at all, and says how far it is in the same
transaction, or by the same rename. Values of sealed fields never get here.

Not here: connections to nodes and what is verified (``comity``).
"""
