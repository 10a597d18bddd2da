"""How do facts come in? Files are read by contract; good rows become stamped facts, bad ones go to quarantine."""
