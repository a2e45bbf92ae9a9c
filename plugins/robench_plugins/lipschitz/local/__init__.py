"""Local Lipschitz bounds: slopes of logit differences between a point and every other one in a ball around it."""
