"""The command `medrobust`: one file per command, imported when it runs, so that `--help` imports no torch."""
