"""From the command line to checked values, and from values to objects and names."""
