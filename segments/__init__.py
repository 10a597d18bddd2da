"""Rules that choose profiles: the predicate language, segments and audiences."""
