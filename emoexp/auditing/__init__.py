"""An audit: it finds problems of a data set before a model is trained on it.

audit       an audit from its configuration to its pages: start reading here
audit_data  the data set with what is known about it
findings    the result of a chapter, and the findings that audit.fail_on may name
chapters/   one section of the page each, with text, tables and figures:
            class_balance, original, duplicates (with leaks between parts), people, confounds, image_quality,
            suspicious_labels, class_pictures
checks/     the computations of the chapters, on arrays alone
"""
