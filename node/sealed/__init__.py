"""Sealed values of which this node's agency is in the audience: kept apart, and encrypted.

    vault    values under a key each, durable before they are acknowledged
    slots    the keys, overwritten in place when a value is erased
    seen     what an executed block means for them
    keeper   takes deliveries, opens values for those who may, shares them with the audience
    wire     their frames between nodes

The state, the log and the store of certified data never hold a value or its salt.
"""
