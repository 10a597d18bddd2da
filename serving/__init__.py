"""How do answers get out? Scores with their contract, written as facts, and the page of one profile."""
