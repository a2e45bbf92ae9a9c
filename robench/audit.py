"""The samples that attacks run on although a certificate is trusted there (`--trust-certificates`)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from robench.errors import InputError

__all__ = ["AUDIT", "AUDITED", "audited", "share_of"]

AUDIT = 0.05
"""The share of certified samples that is attacked nonetheless, unless another is asked for."""

AUDITED = "audited"
"""The key that marks an attack's row about a sample whose certificate it checks, true in the row's detail."""


def audited(seed: int, fraction: float, samples: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Return which samples (original indices) are audited, [N]: each on its own, with probability `fraction`.

    It depends on seed and index alone: no batch, order, evaluator or earlier outcome has a say.
    """
    import torch

    from robench.streams import Stream

    drawn = Stream.for_samples(seed, "trust-certificates", samples).uniform((), dtype=torch.float64)
    return np.asarray(drawn.numpy() < fraction)


def share_of(given: bool | float | None) -> float | None:
    """Return the share to audit: `AUDIT` where certificates are just to be trusted, None where they are not.

    Raises InputError for a share outside (0, 1]: some of what is trusted is always audited.
    """
    if given is None or given is False:
        return None
    if given is True:
        return AUDIT
    if not 0 < given <= 1:
        raise InputError(f"an audit of {given:g} of the certified samples: give a share above 0, up to 1")
    return float(given)
