"""Who calls us, and what they may: API tokens, the admin key, permissions, the caller's address."""
