"""Branch and bound over the signs of ReLUs, or over the inputs, until every piece is proven or a point refutes it."""
