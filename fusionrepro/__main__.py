"""`python -m fusionrepro`."""

from fusionrepro.cli import main

if __name__ == "__main__":
    main()
