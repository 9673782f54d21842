"""`python -m computeragent`."""

from computeragent.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
