"""Exits when imported."""

import sys

sys.exit("I end the process of whoever imports me")
