"""Finished runs put together: tables with intervals, differences, figures, pages. Nothing is trained.

cells      from what is wanted to the finished runs that can be compared, and what is left out and why
folds      the folds of a seed as one cell
arms       cells that differ in their seed alone, and their differences from a baseline
protocols  what a leaky protocol pretends
tables     numbers and sentences
pictures   figures
pages      Markdown, LaTeX and one HTML page
build      a report, top to bottom: start here
"""
