"""The standard feature views, one a file. A project's `views/` folder adds to them or replaces one by name."""
