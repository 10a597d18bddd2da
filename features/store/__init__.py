"""The Feast repository: generated from the definitions, offline on DuckDB, online on SQLite."""
