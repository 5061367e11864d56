"""The suites that prove an implementation of smlt's interfaces, published for third parties.

Subclass one in a test module, give its one fixture, inherit the tests. Needs pytest.
"""

import pytest

# Before they are imported, so that a failing assertion in an inherited test says what the values were.
for _suite in ("backend", "channel", "object_store", "planner", "task"):
    pytest.register_assert_rewrite(f"{__name__}.{_suite}")
