"""How numbers travel: the codecs by name. One codec a file; nothing else enters."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from smlt.core.errors import ConfigError, nearest
from smlt.core.sync.codecs.bf16 import Bf16
from smlt.core.sync.codecs.codec import Codec
from smlt.core.sync.codecs.fp16 import Fp16
from smlt.core.sync.codecs.int8 import Int8
from smlt.core.sync.codecs.topk import TopK
from smlt.core.sync.names import EXACT

__all__ = ["CODECS", "Codec", "codec_named"]

CODECS: Mapping[str, Codec] = MappingProxyType({codec.name: codec for codec in (Bf16(), Fp16(), Int8(), TopK())})
"""All codecs, by name; shared by all threads."""


def codec_named(name: str) -> Codec | None:
    """The codec of that name; None for fp32, which sends numbers as they are. Raises ConfigError for any other."""
    if name == EXACT:
        return None
    if name not in CODECS:
        raise ConfigError(f"no codec is called {name!r}", nearest(name, [EXACT, *CODECS]))
    return CODECS[name]
