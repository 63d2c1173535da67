"""Many runs from one command: cells planned, checked and done, whatever happens to one of them."""
