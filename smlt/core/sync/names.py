"""What ways of synchronising are called, in settings, plans and records; imports nothing, so that settings may."""

from __future__ import annotations

from typing import Final, Literal

Mode = Literal["every_step", "local_sgd"]
"""How ranks are kept one computation; `smlt.core.stepping.STEPPINGS` has them."""

CodecName = Literal["fp32", "bf16", "fp16", "int8", "topk"]
"""How numbers travel; `smlt.core.sync.codecs.CODECS` has all but fp32, which is none."""

Recovery = Literal["exact", "fast"]
"""What becomes of PRIVATE state when a rank is lost."""

EVERY_STEP: Final = "every_step"
LOCAL_SGD: Final = "local_sgd"
EXACT: Final = "fp32"
"""What is meant where nothing is said: `mode = "auto"` and `codec = "auto"`."""

FAST: Final = "fast"
"""Of `Recovery`: who has lost PRIVATE state begins anew at the last exchange; `exact`: all go back to a checkpoint."""
