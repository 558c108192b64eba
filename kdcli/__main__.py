"""`python -m kdcli`."""

from kdcli.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
