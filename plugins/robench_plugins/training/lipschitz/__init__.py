"""Layers and networks that expand no l2 distance, and the recipes that train them."""
