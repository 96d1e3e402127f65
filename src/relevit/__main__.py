"""`python -m relevit` is `relevit`."""

from relevit.cli import main

if __name__ == "__main__":
    main()
