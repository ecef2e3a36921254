"""`python -m focusc` is the command line."""

from focusc.cli import main

if __name__ == "__main__":
    main()
