"""What can be wrong with labelled images, found from pixels, names and labels alone."""
