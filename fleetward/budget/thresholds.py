"""Thresholds: what happens when some part of a limit is reached."""

from fleetward.budget.news import Event, News
from fleetward.budget.pages import Pages
from fleetward.budget.pot import PauseState, Pot, PotKey
from fleetward.budget.terms import Terms


def mark_of(most: int, percent: int) -> int:
    """Give the amount that a part of a limit is; what is more goes past the threshold."""
    return most * percent // 100


def roll(pages: Pages, key: PotKey, pot: Pot, terms: Terms, now: float) -> None:
    """Free what a rolling window no longer holds, and forget the thresholds that are no longer reached."""
    if pot.roll(terms.window, now):
        pages.changed(key)
    if pot.told and terms.window.kind == "Rolling":
        watch(pages, key, pot, terms, now)


def watch(pages: Pages, key: PotKey, pot: Pot, terms: Terms, now: float) -> None:
    """Tell thresholds that settled and reserved amounts have reached, once in a window, and pause where they say so."""
    for limit, most in terms.limits.items():
        used = pot.used(limit)
        for threshold in terms.thresholds:
            mark = mark_of(most, threshold.percent)
            if threshold.action == "Pause":
                if used > mark and pot.pause is None:
                    reason = f"{used} of {most} {limit} is used or reserved, more than {threshold.percent} %"
                    pause(pages, key, pot, PauseState(limit, threshold.percent, 0, mark, now, reason))
                continue
            name = f"{limit} {threshold.percent}"
            reached = used >= mark and used > 0
            if reached and name not in pot.told:
                pot.told.append(name)
                pages.changed(key)
                pages.tell(_reached(key, pot, terms, limit, threshold.percent, now))
            elif not reached and name in pot.told and terms.window.kind == "Rolling":
                # What rolls out of the window lets the threshold be reached anew.
                pot.told.remove(name)
                pages.changed(key)


def _reached(key: PotKey, pot: Pot, terms: Terms, limit: str, percent: int, now: float) -> News:  # noqa: PLR0917 - names
    used = pot.used(limit)
    return News(
        event="Threshold",
        budget=key.budget,
        scope=key.scope,
        window=key.window,
        limit=limit,
        percent=percent,
        amounts={limit: used},
        reason=f"{used} of {terms.limits[limit]} {limit} of {terms.name} is used or reserved: {percent} % is reached",
        at=now,
    )


def pause(pages: Pages, key: PotKey, pot: Pot, state: PauseState) -> None:
    """Let nothing more be taken from a pot in this window."""
    pot.pause = state
    pages.changed(key)
    pages.tell(_pause_news(key, state, "Paused", state.reason, state.at))


def resume(pages: Pages, key: PotKey, pot: Pot, reason: str, now: float) -> None:
    """End the pause of a pot."""
    state, pot.pause = pot.pause, None
    pages.changed(key)
    if state is not None:
        pages.tell(_pause_news(key, state, "Resumed", reason, now))


def _pause_news(key: PotKey, state: PauseState, event: Event, reason: str, now: float) -> News:
    return News(
        event=event,
        budget=key.budget,
        scope=key.scope,
        window=key.window,
        limit=state.limit,
        percent=state.percent,
        reason=reason,
        at=now,
    )


def may_resume(pot: Pot, terms: Terms | None) -> str:
    """Say why a paused pot need not be paused any more; empty where it must.

    In a window of its own it stays paused until that ends, unless limits or thresholds change so that it no longer
    would be. A rolling window has room again as time goes by.
    """
    state = pot.pause
    if state is None:
        return ""
    if terms is None:
        return "the budget is gone"
    percents = [one.percent for one in terms.thresholds if one.action == "Pause"]
    most = terms.limits.get(state.limit)
    if most is None or not percents:
        return "the budget no longer pauses there"
    mark = mark_of(most, min(percents))
    if mark == state.mark and terms.window.kind != "Rolling":
        return ""
    if pot.used(state.limit) + state.need > mark:
        return ""
    return "the limit allows more now" if mark != state.mark else "enough has rolled out of the window"
