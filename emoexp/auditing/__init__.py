"""A data set looked at before anyone trains: what is counted, shown and named, chapter by chapter.

audit      an audit, top to bottom: start here
subject    what is looked at, and what a chapter says
classes    how uneven the classes are, what the test part can tell, what the faces look like
repeated   pictures that stand there several times, within parts and across them
origins    people, sources, and the original that a copy is compared with
odd        pictures and labels that stand out
"""
