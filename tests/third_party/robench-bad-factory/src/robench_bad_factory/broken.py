"""Cannot be imported."""

raise OSError("libnothing.so: cannot open shared object file")
