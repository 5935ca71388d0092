"""`python -m tracker` is `tracker`."""

from tracker.main import main

main()
