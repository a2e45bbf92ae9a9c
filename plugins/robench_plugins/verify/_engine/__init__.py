"""The bound-propagation engine: a graph lowered to affine steps and activations, and linear bounds through them.

`lower` makes a `Program` of a graph; a `Region` holds a set of inputs per sample; `bounded` bounds every activation's
input by interval arithmetic or CROWN, `refined` with optimised slopes; `lower_bounds` pushes rows of linear forms back
to the input; `optimise` chooses slopes and multipliers. What is computed with `errors` holds in real arithmetic.
"""
