"""Who may ask the service for what, and who has asked? Keys, tokens, scopes, limits, and the trail of what was read."""
