"""The runner: it plans a run, feeds samples to plugins in chunks, and believes none of them."""

from robench.runner._chunk import ChunkResult
from robench.runner._draws import draws_stream, vote
from robench.runner._judge import Judge, Verdict
from robench.runner._plan import Evaluator, Plan, automatic_batch_size
from robench.runner._regional import budget
from robench.runner._rows import Block, WitnessBlock
from robench.runner._run import chunks, evaluate_chunk, refuse_undeclared_randomness

__all__ = [
    "Block",
    "ChunkResult",
    "Evaluator",
    "Judge",
    "Plan",
    "Verdict",
    "WitnessBlock",
    "automatic_batch_size",
    "budget",
    "chunks",
    "draws_stream",
    "evaluate_chunk",
    "refuse_undeclared_randomness",
    "vote",
]
