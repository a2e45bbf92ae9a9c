"""robench: adversarial robustness, per sample and from both sides."""
