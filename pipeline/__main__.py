"""``python -m pipeline``: the command line as ``ray job submit`` runs it."""

from pipeline.commands.cli import main

if __name__ == "__main__":
    main()
