"""How good a model is, and how it came to be: metrics, plots, validation and tuning."""
