"""Scores of people of whom something has just come in: what `foretell stream` does between two batches."""
