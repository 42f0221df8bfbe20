"""Coverage-guided fuzzing of everything that reads bytes from strangers, people or the disk.

``targets`` has one entry function for each reader, ``corpus`` the inputs that are replayed with the
suite, ``campaign`` runs atheris. See ``scripts/fuzz --help``.
"""
