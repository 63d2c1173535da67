"""One module for each data set or layout: files to a `Source`."""
