"""Which code, params and data a result belongs to, from git and DVC."""
