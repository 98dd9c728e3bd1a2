"""`python -m fallline`: the console script."""

from fallline.cli import main

if __name__ == "__main__":
    main()
