"""An audit: what is wrong with a data set, found before anyone trains on it.

audit       an audit from its configuration to its pages: start here
audit_data  the data set with what is known about it
findings    what a chapter returns, and the findings that audit.fail_on may name
chapters/   one section of the page each, in the experimenter's words:
            class_balance, original, duplicates (with leaks between parts), people, confounds, image_quality,
            suspicious_labels, class_pictures
checks/     the computations behind the chapters: numbers in, numbers out
"""
