"""Jobs of many processes on many machines, kept in Redis and handed out over RQ's queues.

Redis holds the truth about each job (`records`, `jobs`): every step is one
transaction. RQ's lists say which job is the next (`tickets`), and RQ's registry
which workers there are. What a killed process held is found by its lease and
taken up by another (`keeper`).
"""
