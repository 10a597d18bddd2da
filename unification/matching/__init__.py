"""Which records without a common identifier are one person? Probabilistic matching with Splink, and what becomes of
it."""
