"""Parts of the demonstration: the stage, the people, and one module for each scene or two.

story.py      what is told, and claims that are checked
cast.py       the network, the people with their keys, clients and receipts
conflicts.py  scenes 1 and 2: the same record, and a fact that moved
payday.py     scene 3: five hundred payments while holds are placed
powers.py     scene 4: who may not
crashes.py    scene 5: nodes killed and restarted
evidence.py   scene 6: a proof checked against the genesis hash alone
"""
