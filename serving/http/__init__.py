"""The HTTP service: scores, profiles, tasks and segments, from what was published. Knows neither training nor identity."""
