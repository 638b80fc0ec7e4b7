"""Keeping the garbage collector's pauses short."""

import gc


def settle() -> None:
    """Take what is in memory now for lasting: later collections pass over it.

    Otherwise a decision would wait, now and then, while everything imported and a thousand rules are looked through.
    """
    gc.collect()
    gc.freeze()
