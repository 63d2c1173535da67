"""Many runs from one command, whatever happens to one of them.

supervise   a sweep from its cells to its table, top to bottom: start here
compose     the command line as cells: every one composed and checked, before anything starts
cells       a cell, what became of it, and the folder that keeps both
tune        the same small search for a learning rate for every cell
worker      what a worker process does: judge cells, train one after another
pool        workers under a supervisor: a cell that takes its process with it fails alone
mps         several processes at once on one GPU
launchers   cells as jobs of one of Hydra's launchers, beyond one machine
settle      what a sweep does for a run from outside: find, end, show in MLflow
table       a sweep in words
plugin      what Hydra calls for --multirun, installed as hydra_plugins.emoexp
"""
