"""Many runs from one command; a cell that fails does not end the others.

supervise   a whole sweep, in the order of the code: start here
compose     turns the command line into cells; composes and checks all of them before one starts
cells       a cell, its outcome, and the sweep's folder, which records both
tune        a small search for the learning rate of each arm, the same for all arms
worker      what a worker process does: it checks cells, and trains one after another
pool        the worker processes; where one dies, only its cell fails
mps         several processes at once on one GPU
launchers   runs cells on other machines, as jobs of one of Hydra's launchers
outcomes    what a sweep does with its runs: accepts finished ones, closes dead ones, shows them in MLflow
messages    tables and lines for the user
plugin      what Hydra calls for --multirun, installed as hydra_plugins.emoexp
"""
