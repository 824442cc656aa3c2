"""The demo: a whole federation on one machine, and a harness that measures it.

The harness owns all data, which no party ever does. It is no part of agent or coordinator: it writes training
rows into the silos' directories, keeps the held-out rows to itself, runs the same commands that institutions
type, and scores the model file that each agent wrote.
"""
