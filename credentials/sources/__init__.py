"""Ways to a token that need no person: one module a kind."""
