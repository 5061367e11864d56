"""What stands in place of a header when contributions do not fit together: so that ranks stop that never meet.

A rank that stopped at once would leave those that wait for it without a reason.
"""

from __future__ import annotations

from smlt.core.errors import ProtocolError
from smlt.core.sync.header import Header

_MARK = b"none"
HINT = "another rank found this: its own error says more"


def refusal(error: ProtocolError) -> bytes:
    """As many bytes as a header has, that say why there is none; of a long message, its beginning."""
    text = error.message.encode()[: Header.SIZE - len(_MARK)].decode(errors="ignore").encode()
    return (_MARK + text).ljust(Header.SIZE, b"\0")


def header_of(head: bytes) -> Header:
    """The header that a value begins with; raises ProtocolError if it is a refusal, or neither."""
    if head.startswith(_MARK):
        raise ProtocolError(head.removeprefix(_MARK).rstrip(b"\0").decode(errors="replace"), HINT)
    return Header.unpack(head)
