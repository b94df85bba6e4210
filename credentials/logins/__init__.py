"""Sign-ins of accounts: begun, answered, kept."""
