"""A run's folder and the process that works in it.

files        how files are written, read and locked
tables       rows as CSV files and as text
manifest     all that decides a run's result, and in what two runs differ
folder       the folder of a run: how it is found and locked, and the run's status
records      the results of a run, read only
kept         the results of many runs in two small files: a table, with kept_schema, and kept_predictions
checkpoint   tensors on disk
machine      the machine that computes
process      what surrounds a training: log, signals, progress, tracking
"""
