"""The bound-propagation engine: a graph lowered to affine steps and activations, and linear bounds through them.

`lower` makes a `Program` of a graph; `Region` is a set of inputs; `propagate` bounds every activation's input
(IBP or CROWN); `lower_bounds` pushes rows of linear forms back to the input; `optimise` chooses the slopes. What
is returned in float64 with `sound=True` holds in real arithmetic.
"""
