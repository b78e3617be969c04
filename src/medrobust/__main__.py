"""`python -m medrobust` is the command `medrobust`."""

from medrobust.cli.group import main

if __name__ == "__main__":
    main()
