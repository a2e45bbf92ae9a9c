# Distributions of their own: their tests import what is installed, and run where it is.
collect_ignore_glob = ["robench-*"]
