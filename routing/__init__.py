"""Names to targets, pure: aliases, rules, strategies, cooldowns, tries. No IO, no clock, no randomness of its own."""
