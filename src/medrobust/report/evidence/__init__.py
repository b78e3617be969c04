"""Which items of reporting guidelines this run fills: their list as JSON, and the rules that look for records."""
