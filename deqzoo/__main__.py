"""`python -m deqzoo` is `deqzoo`."""

from deqzoo.cli import main

main()
