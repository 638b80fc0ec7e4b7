"""Changes of operating mode are recorded once each, whoever was running when they were made."""

from datetime import UTC, datetime

from support import make
from support.streams import World, until

from fleetward.audit.query import RecordQuery
from fleetward.audit.record import ModeChangeRecord
from fleetward.registry.registry import Remove, Upsert
from fleetward.registry.slice import OperatingMode
from fleetward.resources import Agent
from fleetward.resources.base import SET_BY_ANNOTATION
from fleetward_operator.hub.modes import RecordedElsewhere


def recorded(world: World) -> list[ModeChangeRecord]:
    records = [stored.record for stored in world.store.read(RecordQuery(types=("ModeChange",)))]
    return [record for record in records if isinstance(record, ModeChangeRecord)]


def brief(world: World) -> list[tuple[str, str, str]]:
    return [(record.subject, record.before, record.after) for record in recorded(world)]


async def test_a_pause_and_its_end_are_recorded_with_who_and_why(world: World) -> None:
    registry = make.registry()
    await world.hub_up(registry)
    agent = make.agent("alpha", operatingMode="Paused", operatingReason="odd exports")
    data = agent.model_dump(by_alias=True, mode="json", exclude_none=True)
    data["metadata"]["annotations"] = {SET_BY_ANNOTATION: "Paused by ops@example.com"}
    paused = registry.apply([Upsert(Agent.model_validate(data))])
    world.hub.publish(paused)
    await until(lambda: len(recorded(world)) == 1)
    (record,) = recorded(world)
    assert (record.subject, record.agent) == ("Agent reports/alpha", "reports/alpha")
    assert (record.before, record.after) == ("Running", "Paused")
    assert (record.reason, record.set_by) == ("odd exports", "ops@example.com")
    assert record.registry_version == paused.version

    world.hub.publish(registry)
    await until(lambda: len(recorded(world)) == 2)
    record = recorded(world)[-1]
    assert (record.before, record.after, record.set_by) == ("Paused", "Running", "")


async def test_a_fleet_is_a_subject_of_its_own(world: World) -> None:
    await world.hub_up(make.registry())
    world.hub.publish(make.registry().apply([Upsert(make.fleet("all", operatingMode="Stopped"))]))
    await until(lambda: brief(world) == [("AgentFleet all", "Running", "Stopped")])
    assert recorded(world)[0].agent is None


async def test_a_quick_pause_and_resume_are_both_recorded(world: World) -> None:
    registry = make.registry()
    await world.hub_up(registry)
    paused = registry.apply([Upsert(make.agent("alpha", operatingMode="Paused"))])
    for _ in range(3):
        world.hub.publish(paused)
        world.hub.publish(registry)
    await until(lambda: len(brief(world)) == 6)
    assert [after for *_, after in brief(world)] == ["Paused", "Running"] * 3


async def test_a_restart_records_nothing_but_what_changed_meanwhile(world: World) -> None:
    registry = make.registry(("alpha", "beta")).apply([Upsert(make.agent("alpha", operatingMode="Paused"))])
    await world.hub_up(registry)
    await until(lambda: len(brief(world)) == 1)
    for _ in range(2):
        await world.hub_down()  # waits until all is recorded
        await world.hub_up(registry)
    await world.hub_down()
    assert len(brief(world)) == 1

    changed = registry.apply(
        [
            Upsert(make.agent("alpha", operatingMode="Quarantined")),
            Upsert(make.agent("beta", operatingMode="Paused")),
        ]
    )
    await world.hub_up(changed)
    await world.hub_down()
    assert sorted(brief(world)[1:]) == [
        ("Agent reports/alpha", "Paused", "Quarantined"),
        ("Agent reports/beta", "Running", "Paused"),
    ]


async def test_a_resource_that_goes_and_comes_back_running_is_recorded_as_resumed(world: World) -> None:
    paused = make.registry(("alpha",), operatingMode="Paused")
    await world.hub_up(paused)
    await until(lambda: len(brief(world)) == 1)
    world.hub.publish(paused.apply([Remove("Agent", "reports/alpha")]))
    world.hub.publish(make.registry(("alpha",)))
    await until(lambda: brief(world)[1:] == [("Agent reports/alpha", "Paused", "Running")])


async def test_a_full_store_delays_the_record_and_not_the_pause(world: World) -> None:
    registry = make.registry()
    await world.hub_up(registry)
    sidecar = await world.connected()
    world.store_connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON main.records BEGIN SELECT RAISE(FAIL, 'full'); END"
    )
    world.hub.publish(registry.apply([Upsert(make.agent("alpha", operatingMode="Paused"))]))
    await until(lambda: sidecar.slices[-1].items.agents["reports/alpha"].mode.operating_mode == "Paused")
    await until(lambda: "full" in world.hub.status().store_problem)
    assert brief(world) == []
    world.store_connection.execute("DROP TRIGGER full")
    await until(lambda: brief(world) == [("Agent reports/alpha", "Running", "Paused")])
    await until(lambda: not world.hub.status().store_problem)


async def test_a_hub_that_does_not_record_leaves_it_to_another_and_takes_over_from_what_that_one_did(
    world: World,
) -> None:
    registry = make.registry(("alpha", "beta"))
    elsewhere: dict[str, OperatingMode] = {}
    await world.hub_up(recorded_elsewhere=lambda: RecordedElsewhere(elsewhere))
    world.hub.record_modes = False
    world.hub.publish(registry)
    for mode in ("Paused", "Quarantined"):
        world.hub.publish(registry.apply([Upsert(make.agent("alpha", operatingMode=mode))]))
    changes = [Upsert(make.agent(name, operatingMode="Stopped")) for name in ("alpha", "beta")]
    world.hub.publish(registry.apply(changes))
    elsewhere["Agent reports/alpha"] = "Stopped"  # so says the hub that recorded meanwhile
    world.hub.record_modes = True
    await until(lambda: brief(world) == [("Agent reports/beta", "Running", "Stopped")])

    world.hub.record_modes = False
    world.hub.publish(registry)
    elsewhere["Agent reports/beta"] = "Stopped"
    world.hub.record_modes = True
    await until(lambda: len(brief(world)) == 3)
    assert sorted(brief(world)[1:]) == [
        ("Agent reports/alpha", "Stopped", "Running"),
        ("Agent reports/beta", "Stopped", "Running"),
    ]


async def test_recording_ended_and_begun_without_a_change_records_nothing(world: World) -> None:
    registry = make.registry(("alpha",), operatingMode="Paused")
    await world.hub_up(registry)
    await until(lambda: len(brief(world)) == 1)
    for _ in range(3):
        world.hub.record_modes = False
        world.hub.record_modes = True
    await world.hub_down()
    assert len(brief(world)) == 1


async def test_changes_that_wait_when_recording_ends_are_left_to_another(world: World) -> None:
    await world.hub_up(make.registry())
    world.store_connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON main.records BEGIN SELECT RAISE(FAIL, 'full'); END"
    )
    world.hub.publish(make.registry(operatingMode="Paused"))
    await until(lambda: "full" in world.hub.status().store_problem)
    world.hub.record_modes = False
    world.store_connection.execute("DROP TRIGGER full")
    await world.hub_down()
    assert brief(world) == []


async def test_who_goes_on_recording_also_knows_what_its_own_store_has_since_then(world: World) -> None:
    registry = make.registry(("alpha", "beta"))
    began = datetime.now(UTC)
    await world.hub_up()
    world.hub.publish(registry.apply([Upsert(make.agent("alpha", operatingMode="Stopped"))]))
    await until(lambda: brief(world) == [("Agent reports/alpha", "Running", "Stopped")])
    await world.hub_down()
    # It was killed before the status said so; what is recorded of beta is older than that, by another hub.
    before: dict[str, OperatingMode] = {"Agent reports/beta": "Paused"}
    await world.hub_up(recorded_elsewhere=lambda: RecordedElsewhere(before, began))
    changes = [Upsert(make.agent(name, operatingMode="Stopped")) for name in ("alpha", "beta")]
    world.hub.publish(registry.apply(changes))
    await until(lambda: len(brief(world)) == 2)
    assert brief(world)[1] == ("Agent reports/beta", "Paused", "Stopped")
    await world.hub_down()
    later = datetime.now(UTC)
    await world.hub_up(recorded_elsewhere=lambda: RecordedElsewhere(before, later))
    world.hub.publish(registry.apply([Upsert(make.agent("alpha", operatingMode="Paused"))]))
    await until(lambda: len(brief(world)) == 4)
    assert ("Agent reports/alpha", "Running", "Paused") in brief(world)
