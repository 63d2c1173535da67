"""Finished runs compared: tables with intervals, differences, figures, pages. Nothing is trained.

report     a report, top to bottom: start here
collect    from the cells that are asked for to the finished runs that can be compared; what is left out, and why
folds      the folds of a seed as one run
arms       runs that differ in their seed alone, and their differences from a baseline
protocols  how much better a leaky protocol looks than it is
tables     numbers and sentences
pictures   figures
pages      Markdown, LaTeX and one HTML page
"""
