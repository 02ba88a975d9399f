import pytest

from bots.web.live import MAX_PENDING, Hub, PageTooSlow


async def test_a_page_gets_the_events_of_its_thread_and_those_for_all() -> None:
    hub = Hub()
    with hub.subscribe() as page:
        page.thread_ref = "a"
        hub.publish({"n": 1}, thread_ref="a")
        hub.publish({"n": 2}, thread_ref="b")
        hub.publish({"n": 3})
        assert [event["n"] for event in await page.take()] == [1, 3]


async def test_a_slow_page_is_cut_off_and_holds_nobody_up() -> None:
    hub = Hub()
    with hub.subscribe() as slow, hub.subscribe() as quick:
        for n in range(MAX_PENDING + 1):
            hub.publish({"n": n})
            assert await quick.take() == [{"n": n}]
        with pytest.raises(PageTooSlow):
            await slow.take()


def test_a_page_that_left_is_forgotten() -> None:
    hub = Hub()
    with hub.subscribe():
        assert hub.pages == 1
    assert hub.pages == 0
