"""Which questions become comparisons, and which answer stands where."""

from uuid import UUID, uuid4

import pytest

from bots.comparisons import kind_for, order_of
from storage.identity import MessageId


def test_both_orders_come_equally_often() -> None:
    left = sum(order_of(MessageId(uuid4())) == (0, 1) for _ in range(2000))
    assert 850 < left < 1150  # 6.7 standard deviations
    assert order_of(MessageId(UUID(int=0))) == (0, 1)
    assert order_of(MessageId(UUID(int=1))) == (1, 0)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_channels_share_of_questions_is_compared(share: float) -> None:
    refs = [f"A0:C0:{number}.000100" for number in range(4000)]
    kinds = [kind_for(share, ref) for ref in refs]
    assert kinds == [kind_for(share, ref) for ref in refs]
    assert abs(kinds.count("compare") / 4000 - share) < 0.05
