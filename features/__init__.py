"""What did we know about a profile at T? Views, built as of any cutoff by one code path, and the Feast store."""
