"""The HTTP service: answers from what was published. It knows neither training nor unification."""
