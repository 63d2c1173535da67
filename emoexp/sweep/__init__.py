"""Many runs from one command; a cell that fails does not end the others.

supervise   a sweep from its cells to its table, top to bottom: start here
compose     the command line as cells: every one composed and checked, before anything starts
cells       a cell, what became of it, and the folder that keeps both
tune        the same small search for a learning rate for every arm
worker      what a worker process does: check cells, train one after another
pool        worker processes: where one dies, its cell alone fails
mps         several processes at once on one GPU
launchers   cells as jobs of one of Hydra's launchers, beyond one machine
outcomes    what a sweep does with a run from outside: accept a finished one, end a dead one, show one in MLflow
messages    tables and lines for the user
plugin      what Hydra calls for --multirun, installed as hydra_plugins.emoexp
"""
