"""How fast is it, and how good? Every benchmark compares with the alternative in one run, and says so in one format.

One module per benchmark: `python -m benchmarks.NAME` runs it alone, `python -m benchmarks` runs them all. `report`
holds what they share. A new benchmark is a new module with a `main`; nothing needs to be registered.
"""
