"""The built-in actions of the charter's domain: who is who, and who may do what.

``catalogue`` lists them with their inputs; the other modules carry them out. Not here: who may use
them, which is the charter rule set's to say.
"""
