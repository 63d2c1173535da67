"""Images with labels from four sources in one shape, and the split into parts."""
