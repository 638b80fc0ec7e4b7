"""Which of the other replicas keeps a run, by what each says of itself."""

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes.aio.client import ApiClient, Configuration
from support.relaying import OURS, Replica, relaying, step
from support.streams import until

from fleetward.decision.replies import Failed
from fleetward_operator.cluster.peers import Peers
from fleetward_operator.hub.kept import KeptRuns

SELF = KeptRuns(tag="zzzzzz", instance="me")


@contextlib.asynccontextmanager
async def peers(directory: Path, *urls: str, token: str = OURS) -> AsyncIterator[Peers]:
    """Ask these replicas, as one does that is told where they are."""
    file = directory / "token"
    file.write_text(token)
    async with ApiClient(Configuration(host="http://127.0.0.1:1")) as nowhere:
        known = Peers(
            nowhere,
            "fleetward-system",
            own_address="",
            fixed=urls,
            token_file=file,
            trust=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            changed=lambda: None,
        )
        task = asyncio.create_task(known.run())
        try:
            yield known
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def keeper(known: Peers, tag: str) -> str:
    try:
        return known.keeper(tag)
    except LookupError as error:
        return str(error.args[0])


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Replica, Replica]]:
    async with relaying(tmp_path / "one") as one, relaying(tmp_path / "two") as other:
        yield one, other


async def test_each_says_what_it_keeps(tmp_path: Path, two: tuple[Replica, Replica]) -> None:
    urls = [replica.url for replica in two]
    async with peers(tmp_path, *urls) as known:
        assert "it is down, or gone with its journal" in keeper(known, two[0].tag)
        await until(lambda: [keeper(known, replica.tag) for replica in two] == urls)
        assert known.problems == {}
        assert known.twin(SELF) == ""
        unknown = keeper(known, "zzzzzz")
    assert all(url in unknown for url in urls)


async def test_one_that_does_not_answer_any_more_is_still_asked(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(relaying(tmp_path / "one"))
        async with peers(tmp_path, one.url) as known:
            await until(lambda: keeper(known, one.tag) == one.url)
            await stack.aclose()
            await until(lambda: one.url in known.problems)
            assert keeper(known, one.tag) == one.url, "its journal comes back with it"


async def test_whoever_may_not_ask_learns_nothing(tmp_path: Path, two: tuple[Replica, Replica]) -> None:
    async with peers(tmp_path, two[0].url, token="somebody") as known:  # noqa: S106 - a name
        await until(lambda: "answered 403" in known.problems.get(two[0].url, ""))
        assert "it is down, or gone" in keeper(known, two[0].tag)


async def test_a_copy_of_a_journal_is_found_out(tmp_path: Path) -> None:
    """Both the copies and everybody else refuse: no run may be counted twice."""
    async with relaying(tmp_path / "one") as one:
        run = await one.open()
        await one.ask(step(run))
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    async with relaying(tmp_path / "one") as one, relaying(tmp_path / "copy") as copy:
        assert one.tag == copy.tag
        async with peers(tmp_path, one.url, copy.url) as known:
            await until(lambda: "one of their journals is a copy" in keeper(known, one.tag))
            assert one.desk.kept is not None
            assert known.twin(one.desk.kept) == copy.url
            one.known.twin_url = known.twin(one.desk.kept)
            assert isinstance(await one.ask(step(run)), Failed)


async def test_a_replica_does_not_take_itself_for_another_one(tmp_path: Path, two: tuple[Replica, Replica]) -> None:
    """It may see itself where it has two addresses."""
    async with peers(tmp_path, two[0].url) as known:
        await until(lambda: keeper(known, two[0].tag) == two[0].url)
        assert two[0].desk.kept is not None
        assert known.twin(two[0].desk.kept) == ""
